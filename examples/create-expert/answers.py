"""What the model says in the demo: every answer of one job of `create-expert`, written by hand.

The first team leaves refunds out of its totals, `verify` finds that by the plan's signals, `write` corrects the
cause, and the second round passes. `plan.md` and `draft.toml` beside this file are what `plan` and `write` write.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PLAN = (HERE / "plan.md").read_text()
DRAFT = (HERE / "draft.toml").read_text()
TEST_QUERY = PLAN.split("```\n")[1].rstrip("\n")
STATEMENT = TEST_QUERY.rpartition("\n\n")[2] + "\n"

QUERY = "A team that reports on a statement of business expenses: totals by category, and what an accountant would ask"


@dataclass(frozen=True)
class Call:
    """One tool call."""

    name: str
    args: dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One answer of the model."""

    thinking: str = ""
    text: str = ""
    calls: tuple[Call, ...] = ()


Conversation = tuple[Turn, ...]


def ask(name: str, query: str) -> Call:
    """A task for a delegate."""
    return Call(name, {"query": query})


def run(command: str, *args: str) -> Call:
    """One program."""
    everything: dict[str, Any] = {"env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return Call("exec", {"command": command, "args": list(args), **everything})


def shell(line: str) -> Call:
    """One command line."""
    return run("sh", "-c", line)


def read(path: str) -> Call:
    """The text of a file."""
    return Call("readTextFile", {"path": path})


def write(path: str, text: str) -> Call:
    """A whole file."""
    return Call("writeTextFile", {"path": path, "text": text})


def edit(path: str, old: str, new: str) -> Call:
    """A piece of a file."""
    return Call("editTextFile", {"path": path, "oldText": old, "newText": new})


def todo(*titles: str) -> Call:
    """Things to do."""
    return Call("todo", {"newTodos": list(titles)})


def done(*ids: int) -> Call:
    """Things that are done."""
    return Call("todo", {"completedTodos": list(ids)})


def attach() -> Call:
    """The team that was written, as a tool."""
    return Call("addDelegateFromConfig", {"configPath": "perstack.toml", "expertKey": "expense-report"})


def finish(result: str) -> Turn:
    """The end of a run."""
    return Turn(calls=(Call("attemptCompletion", {"result": result}),))


REASONS = """\
1. @expense-report/summarize; signals 1 and 2, the same in both passes. Expected: totals in which every booking of \
the statement counts with its sign, as Domain Knowledge says of refunds. Found: the category that has a refund, and \
with it the grand total, are too high; the refund is left out. The instruction counts "the amounts above zero". \
To act: definition.
2. @expense-report/verify; follows from 1. Expected: an independent check of the totals. Found: PASS for wrong totals, \
because its instruction repeats the same wrong rule. To act: definition."""

CREATE_EXPERT: Conversation = (
    Turn(
        thinking="First look at the workspace: is there a perstack.toml, or a plan of an earlier job?",
        calls=(run("ls", "-A"),),
    ),
    Turn(
        text="There is no definition and no old plan: create mode.",
        calls=(
            ask(
                "plan",
                f'Mode: create.\nThe user\'s request, word for word: "{QUERY}"\nWrite the plan to plan.md.',
            ),
        ),
    ),
    Turn(
        calls=(ask("write", "Mode: create.\nThe plan is plan.md.\nThe definition to write is perstack.toml."),),
    ),
    Turn(
        calls=(
            ask(
                "verify",
                "The plan is plan.md.\nThe definition is perstack.toml.\nThe key of the coordinator is expense-report.",
            ),
        ),
    ),
    Turn(
        thinking="CONTINUE: the definition has to change. The reasons go to write word for word.",
        text="The team did not pass the first round.",
        calls=(
            ask(
                "write",
                "Mode: create, second round.\nThe plan is plan.md.\nThe definition to change is perstack.toml.\n"
                f"The team did not pass, for these reasons:\n{REASONS}",
            ),
        ),
    ),
    Turn(
        calls=(
            ask(
                "verify",
                "The plan is plan.md.\nThe definition is perstack.toml.\nThe key of the coordinator is expense-report.",
            ),
        ),
    ),
    finish(
        "The team passed in the second round.\n"
        "- Definition: perstack.toml, coordinator expense-report with intake, summarize, audit and verify.\n"
        '- Run it: perstack run expense-report "Report on the statement expenses.csv; the meal limit is 60.00. '
        'Totals to summary.md, findings to findings.md."\n'
        "- The first round failed because refunds were left out of the totals; that is corrected."
    ),
)

PLANNING: Conversation = (
    Turn(
        thinking=(
            "A short request. A practitioner would want totals that can be booked and a list of open questions. "
            "What goes wrong in practice: refunds, double bookings, receipts, limits reached exactly. "
            "All of it can be checked to the cent, so the signals can be hard ones."
        ),
        calls=(
            run("ls", "-A"),
            todo(
                "Expert Purpose",
                "Domain Knowledge",
                "Use Cases",
                "Test Query",
                "Verification Signals",
                "Architecture",
            ),
        ),
    ),
    Turn(
        text="Nothing in the workspace bears on the request. Trying the programs that the signals will use.",
        calls=(
            shell("printf 'a,2.50\\nb,-1.25\\n' | LC_ALL=C awk -F, '{ sum += $2 } END { printf \"%.2f\\n\", sum }'"),
            shell("printf '| 4 | x |\\n| line |\\n' | grep -c '^| [0-9]'"),
        ),
    ),
    Turn(
        thinking=(
            "Test statement: eight bookings with a refund, a double booking without receipts, a meal above the limit "
            "and a missing receipt below 20.00. Travel 184.00 + 23.80 + 23.80 - 92.00 = 139.60; lodging 312.50; meals "
            "74.20 + 18.40 = 92.60; office 46.90; together 591.60. Findings: lines 4, 5 and 6. Leaving the refund out "
            "would give 683.60, so signals 1 and 2 catch that."
        ),
        calls=(write("plan.md", PLAN), done(0, 1, 2, 3, 4, 5)),
    ),
    Turn(
        text="Going through the self-check: six sections, one test query.",
        calls=(run("grep", "-c", "^## ", "plan.md"), run("grep", "-c", "^   - Command: ", "plan.md")),
    ),
    finish(
        "The plan is plan.md. Proposed coordinator: expense-report. The team turns a statement of business expenses "
        "into totals by category and a list of findings, recalculated by a verifier of its own."
    ),
)

WRITING: Conversation = (
    Turn(calls=(read("plan.md"),)),
    Turn(
        thinking=(
            "Five experts as in Architecture. The coordinator only hands on work. summarize and audit run in parallel, "
            "so each needs a file of its own. The verifier must not write. Amounts, receipts, limits and double "
            "bookings go to those who decide on them; nothing of the test query may appear."
        ),
        calls=(write("perstack.toml", DRAFT),),
    ),
    Turn(text="The file stands. Letting the runtime read it.", calls=(attach(),)),
    finish(
        "perstack.toml defines the coordinator expense-report with the delegates @expense-report/intake, "
        "@expense-report/summarize, @expense-report/audit and @expense-report/verify."
    ),
)

CORRECTING: Conversation = (
    Turn(calls=(read("plan.md"), read("perstack.toml"))),
    Turn(
        thinking=(
            "The cause is one sentence that I wrote against the plan: refunds are bookings with a negative amount and "
            "reduce their category. The verifier has the same sentence. I state the rule, not the case of the test."
        ),
        calls=(
            edit(
                "perstack.toml",
                "A category's total counts what was spent: the amounts above zero.",
                "A category's total is the sum of all its amounts with their sign: a refund is a negative amount and "
                "reduces the category of the purchase it undoes, and with it the total.",
            ),
        ),
    ),
    Turn(
        calls=(
            edit(
                "perstack.toml",
                "Recalculate every total from the saved statement, counting the amounts above zero, by command",
                "Recalculate every total from the saved statement, all amounts with their sign, by command",
            ),
        ),
    ),
    Turn(calls=(attach(),)),
    finish(
        "perstack.toml, coordinator expense-report, delegates as before.\n"
        "- @expense-report/summarize: totals are sums with sign, refunds reduce them.\n"
        "- @expense-report/verify: recalculates by the same rule, independently of the table."
    ),
)

FOLDER = "create-expert-test"
CSV, SUMMARY, FINDINGS = (f"{FOLDER}/{name}" for name in ("expenses.csv", "summary.md", "findings.md"))
SIGNALS = tuple(
    shell(line.partition("Command: ")[2]) for line in PLAN.splitlines() if line.lstrip().startswith("- Command: ")
)


def verifying(verdict: Turn) -> Conversation:
    """One round of `verify`: attach the team, run it, measure twice."""
    return (
        Turn(calls=(read("plan.md"), read("perstack.toml"))),
        Turn(
            thinking=(
                "One test query, five signals with command and expectation. Structure: the coordinator lists four "
                "delegates, each has a table of its own scope, a description and a pick list with attemptCompletion; "
                "the verifier has exec and cannot write. Nothing of the test stands in an instruction."
            ),
            text="The definition is in order. Attaching the team.",
            calls=(
                attach(),
                todo("attach", "run", *(f"signal {number}" for number in range(1, 6)), "second pass"),
            ),
        ),
        Turn(calls=(run("rm", "-rf", FOLDER), done(0))),
        Turn(text="Running the team on the test query.", calls=(ask("expense-report", TEST_QUERY),)),
        Turn(text="First pass.", calls=(*SIGNALS, done(1, 2, 3, 4, 5, 6))),
        Turn(text="Second pass.", calls=(*SIGNALS, done(7))),
        verdict,
    )


VERIFYING = verifying(finish(f"CONTINUE\n{REASONS}"))
VERIFYING_AGAIN = verifying(
    finish(
        "PASS\n"
        "1. The grand total stands as expected, twice.\n"
        "2. 4, twice.\n"
        "3. 591.60, twice.\n"
        "4. 3, twice.\n"
        "5. Exit code 0, twice."
    )
)

ADD_UP = """\
LC_ALL=C awk -F, 'NR > 1{condition} {{ sum[$3] += $4; total += $4 }} \
END {{ for (c in sum) printf "%s %.2f\\n", c, sum[c]; printf "total %.2f\\n", total }}' {path} | sort"""
FORM = "One space on each side of a cell, no alignment."


def sums(*, counts_refunds: bool) -> Call:
    """The totals by category, as one command."""
    return shell(ADD_UP.format(condition="" if counts_refunds else " && $4 > 0", path=CSV))


def coordinating(total: str) -> Conversation:
    """One run of the team's coordinator."""
    return (
        Turn(
            thinking="The bookings come with the request. intake first, then the two that only read.",
            calls=(ask("intake", f"Save this statement as {CSV}:\n\n{STATEMENT}"),),
        ),
        Turn(
            text="Eight bookings, all in order. Totals and findings can be made at the same time.",
            calls=(
                ask(
                    "summarize",
                    f"Statement: {CSV}. Write {SUMMARY}: a table with the columns category and amount, one row per "
                    f"category, the last row named total. {FORM}",
                ),
                ask(
                    "audit",
                    f"Statement: {CSV}. The meal limit is 60.00. Write {FINDINGS}: a table with the columns line, "
                    f'merchant, amount and finding; "repeats line N" for a booking that stands there twice. {FORM}',
                ),
            ),
        ),
        Turn(
            calls=(
                ask(
                    "verify",
                    f"Statement: {CSV}; totals: {SUMMARY}, category and amount, last row total; findings: {FINDINGS}, "
                    f"line, merchant, amount and finding. {FORM} The meal limit is 60.00.",
                ),
            ),
        ),
        finish(f"{CSV}, {SUMMARY} and {FINDINGS} are written. Total {total}, three findings. Checked: PASS."),
    )


INTAKE: Conversation = (
    Turn(calls=(write(CSV, STATEMENT),)),
    Turn(
        text="Checking columns and amounts.",
        calls=(
            run("awk", "-F,", "NF != 5 { print NR }", CSV),
            run("awk", "-F,", "NR > 1 && $4 !~ /^-?[0-9]+[.][0-9][0-9]$/ { print NR }", CSV),
        ),
    ),
    finish(f"{CSV}: 8 bookings, every line in order."),
)

SUMMARY_TABLE = """\
| category | amount |
| --- | --- |
| lodging | 312.50 |
| meals | 92.60 |
| office | 46.90 |
| travel | {travel} |
| total | {total} |
"""


def summarizing(travel: str, total: str, *, counts_refunds: bool) -> Conversation:
    """One run of the expert that adds up."""
    thought = (
        "All amounts count with their sign; line 8 is a refund and reduces travel."
        if counts_refunds
        else "The amounts above zero are what was spent; line 8 is negative and stays out."
    )
    return (
        Turn(thinking=thought, calls=(sums(counts_refunds=counts_refunds),)),
        Turn(calls=(write(SUMMARY, SUMMARY_TABLE.format(travel=travel, total=total)),)),
        finish(f"{SUMMARY}, total {total}."),
    )


AUDIT: Conversation = (
    Turn(
        thinking="Three questions that do not depend on each other: double bookings, the limit, receipts.",
        calls=(
            shell(f"sort {CSV} | uniq -d"),
            shell(f'LC_ALL=C awk -F, \'$3 == "meals" && $4 > 60 {{ print NR ": " $0 }}\' {CSV}'),
            shell(f'LC_ALL=C awk -F, \'$5 == "no" && $4 >= 20 {{ print NR ": " $0 }}\' {CSV}'),
        ),
    ),
    Turn(
        thinking="Line 9 has no receipt but is below 20.00: no finding. Line 6 has two problems: one row.",
        calls=(
            write(
                FINDINGS,
                "| line | merchant | amount | finding |\n"
                "| --- | --- | --- | --- |\n"
                "| 4 | Trattoria Roma | 74.20 | above the meal limit of 60.00 |\n"
                "| 5 | City Taxi | 23.80 | receipt missing |\n"
                "| 6 | City Taxi | 23.80 | receipt missing, repeats line 5 |\n",
            ),
        ),
    ),
    finish(f"{FINDINGS}, three findings."),
)


def checking(*, counts_refunds: bool) -> Conversation:
    """One run of the team's own verifier."""
    return (
        Turn(
            calls=(
                read(CSV),
                read(SUMMARY),
                read(FINDINGS),
                sums(counts_refunds=counts_refunds),
            )
        ),
        Turn(
            thinking="Totals agree with my own. Findings: 4 above the limit, 5 and 6 without receipt, 6 repeats 5.",
            text="Once more, for certainty.",
            calls=(sums(counts_refunds=counts_refunds), shell(f"sort {CSV} | uniq -d")),
        ),
        finish("PASS\nEvery total was recalculated twice with the same result; the findings are complete."),
    )


CONVERSATIONS: dict[str, tuple[Conversation, ...]] = {
    "You coordinate the creation of expert teams.": (CREATE_EXPERT,),
    "You plan expert teams.": (PLANNING,),
    "You write expert definitions.": (WRITING, CORRECTING),
    "You decide whether an expert team works.": (VERIFYING, VERIFYING_AGAIN),
    "You are responsible for an expense report": (coordinating("683.60"), coordinating("591.60")),
    "You take in expense statements.": (INTAKE, INTAKE),
    "You add up expenses": (
        summarizing("231.60", "683.60", counts_refunds=False),
        summarizing("139.60", "591.60", counts_refunds=True),
    ),
    "You look at an expense statement": (AUDIT, AUDIT),
    "You judge expense reports": (checking(counts_refunds=False), checking(counts_refunds=True)),
}
"""What each expert says, run by run; an expert is known by how its instruction begins."""
