from support.scenarios import Play, base_tools, call, expert, interactive_tool, run_input, say

from perstack.core.events import CompleteRun


def test_a_text_answer_completes_the_run() -> None:
    play = Play({"team": [say("done")]})
    result = play.run(run_input(expert("team")))
    assert (result.status, result.text) == ("completed", "done")
    assert play.types == ["startRun", "startGeneration", "completeStreamingRunResult", "completeRun"]


def test_tools_and_completion() -> None:
    play = Play(
        {"team": [say("", call("readTextFile"), call("exec")), say("", call("attemptCompletion", result="yes"))]}
    )
    result = play.run(run_input(expert("team")))
    assert result.text == "yes"
    assert play.types == [
        "startRun",
        "startGeneration",
        "callTools",
        "resolveToolResults",
        "finishToolCall",
        "continueToNextStep",
        "startGeneration",
        "callTools",
        "completeRun",
    ]
    last = play.events[-1]
    assert isinstance(last, CompleteRun)


def test_chain() -> None:
    experts = (expert("a", delegates=("@a/b",)), expert("@a/b", delegates=("@a/c",)), expert("@a/c"))
    play = Play(
        {
            "a": [say("", call("b", query="q")), say("A")],
            "@a/b": [say("", call("c", query="q")), say("B")],
            "@a/c": [say("C")],
        }
    )
    assert play.run(run_input(*experts)).text == "A"
    keep = {"startRun", "resumeFromStop", "callDelegate", "stopRunByDelegate", "completeRun"}
    assert [(t.type, t.expert_key) for t in play.events if t.type in keep] == []


def test_mixed() -> None:
    specs = (*base_tools(), interactive_tool())
    play = Play(
        {
            "a": [say("", call("askUser"), call("askUser", "x2"), call("h", query="1"), call("exec")), say("A")],
            "@a/h": [say("H")],
        },
        specs=specs,
        people=["one", "two"],
    )
    play.run(run_input(expert("a", delegates=("@a/h",)), expert("@a/h")))
    assert play.types == []
