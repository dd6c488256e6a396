import threading

import pytest

from blockferry_agent.pipeline import ClosableQueue, Closed, Ordered, StageGroup


def in_thread(work: "object") -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_a_queue_keeps_order_and_hands_out_what_is_left() -> None:
    queue = ClosableQueue[int](3)
    for number in range(3):
        queue.put(number)
    queue.close()
    assert [*queue] == [0, 1, 2]
    with pytest.raises(Closed):
        queue.get()
    with pytest.raises(Closed):
        queue.put(3)


def test_a_queue_closed_for_an_error_drops_what_is_left() -> None:
    queue = ClosableQueue[int](3)
    queue.put(1)
    queue.close(ValueError("first"))
    queue.close(ValueError("second"))
    with pytest.raises(Closed) as caught:
        queue.get()
    assert str(caught.value.__cause__) == "first"


@pytest.mark.parametrize("full", [True, False], ids=["putter", "getter"])
def test_closing_wakes_who_waits(full: bool) -> None:
    queue = ClosableQueue[int](1)
    woken = threading.Event()
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        with pytest.raises(Closed):
            queue.put(2) if full else queue.get()
        woken.set()

    if full:
        queue.put(1)
    thread = in_thread(wait)
    waits.wait()
    queue.close()
    thread.join()
    assert woken.is_set()


def test_a_full_queue_holds_its_producer() -> None:
    queue = ClosableQueue[int](1)
    done: list[int] = []

    def produce() -> None:
        for number in range(3):
            queue.put(number)
            done.append(number)

    thread = in_thread(produce)
    assert queue.get() == 0
    assert queue.get() == 1
    assert queue.get() == 2
    thread.join()
    assert done == [0, 1, 2]


def test_ordered_work_comes_out_in_order() -> None:
    ordered: Ordered[int, int] = Ordered(iter(range(200)), depth=8)
    threads = [in_thread(lambda: ordered.run(lambda n: n * n)) for _ in range(4)]
    assert [*ordered] == [n * n for n in range(200)]
    for thread in threads:
        thread.join()


def test_ordered_work_waits_for_the_slow_one() -> None:
    ordered: Ordered[int, int] = Ordered(iter(range(3)), depth=8)
    others_done = threading.Barrier(2)

    def work(number: int) -> int:
        if number == 0:
            others_done.wait()
        if number == 2:
            others_done.wait()
        return number

    threads = [in_thread(lambda: ordered.run(work)) for _ in range(2)]
    assert [*ordered] == [0, 1, 2]
    for thread in threads:
        thread.join()


def test_ordered_work_is_not_taken_beyond_its_depth() -> None:
    taken: list[int] = []

    def items() -> "object":
        for number in range(10):
            taken.append(number)
            yield number

    ordered: Ordered[int, int] = Ordered(items(), depth=3)  # type: ignore[arg-type]
    thread = in_thread(lambda: ordered.run(lambda n: n))
    results = iter(ordered)
    assert next(results) == 0
    assert max(taken) <= 1 + 3
    ordered.close()
    thread.join()
    with pytest.raises(Closed):
        list(results)


def test_the_first_error_of_a_group_wins_and_closes() -> None:
    queue = ClosableQueue[int](1)
    group = StageGroup("test")
    group.closes(queue)

    def fail() -> None:
        raise ValueError("first")

    group.spawn("waits", queue.get)  # type: ignore[arg-type]
    group.spawn("fails", fail)
    with pytest.raises(ValueError, match="first"):
        group.join()
    group.fail(ValueError("second"))
    assert str(group.error) == "first"
    late = ClosableQueue[int](1)
    group.closes(late)
    with pytest.raises(Closed):
        late.put(1)


def test_a_group_without_errors_ends_quietly() -> None:
    group = StageGroup("test")
    group.spawn("one", lambda: None)
    assert group.wait(5.0)
    group.join()
    assert group.error is None


def test_waiting_for_a_group_has_an_end() -> None:
    group, queue = StageGroup("test"), ClosableQueue[int](1)
    group.spawn("waits", queue.get)  # type: ignore[arg-type]
    assert not group.wait(0.0)
    queue.close()
    group.join()
