"""A program that mounts Perstack: its workflow and its activity, in a file that the sandbox reads on its own."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from perstack import RunInput, run_expert
from temporalio import activity, workflow


@dataclass
class Order:
    """A value of the program's own, which only its own converter writes like this."""

    title: str
    note: str | None


@activity.defn
async def bind(order: Order, text: str) -> Order:
    """An activity of the program's own."""
    return Order(f"{order.title}: {text}", order.note)


@workflow.defn
class Book:
    """A workflow of the program's own, in its sandbox."""

    @workflow.run
    async def run(self, expert: RunInput, order: Order) -> Order:
        """Two runs of one input, side by side, then an activity."""
        chapters = await asyncio.gather(*(run_expert(expert, query=f"{order.title} {n}") for n in (1, 2)))
        text = " and ".join(chapter.text for chapter in chapters)
        return await workflow.execute_activity(bind, args=[order, text], start_to_close_timeout=timedelta(seconds=30))
