"""Where a receive job stands: what its threads share, under one lock."""

import threading
from typing import Final

from blockferry.errors import BlockferryError
from blockferry_agent.pipeline import Closed
from blockferry_agent.position import Position
from blockferry_agent.session import Session


class Standing:
    """Shared by channel threads, writer and committer.

    Fields are changed with `lock` held. `news` is notified when the commit
    point, the session or the end changes; `work` when there is something to
    commit. Two conditions, since a chunk written is no news to the channels.

    Attributes:
        written: What the writer has put on the device.
        committed: What would survive a power cut; never goes back.
        flushing: Whether the committer is at a flush.
        session: The newest attempt of the source.
        stopped: Why the job ended early.
        root: Root digest, once all is committed and both sides agree.
    """

    def __init__(self, start: Position) -> None:
        self.lock: Final = threading.Lock()
        self.news: Final = threading.Condition(self.lock)
        self.work: Final = threading.Condition(self.lock)
        self.written = self.committed = start
        self.flushing = False
        self.session: Session | None = None
        self.stopped: BlockferryError | None = None
        self.root = b""

    def raise_if_stopped(self) -> None:
        """For callers from outside: raise why the job ended early."""
        if self.stopped is not None:
            raise self.stopped

    def await_session(self, after: Session | None) -> Session:
        """Wait for a session other than `after`; the writer goes back to the commit point.

        Raises:
            Closed: the job ended.
        """
        with self.lock:
            while self.session is None or self.session is after:
                if self.stopped is not None:
                    raise Closed
                self.news.wait()
            self.written = self.committed
            return self.session

    def await_committed(self, offset_bytes: int) -> None:
        """Wait until the commit point is there. Raises Closed when the job ended."""
        with self.lock:
            self.work.notify()
            while self.committed.offset_bytes < offset_bytes:
                if self.stopped is not None:
                    raise Closed
                self.news.wait()

    def await_news(self, session: Session, told_bytes: int) -> int | None:
        """Wait for what a channel must say.

        Returns:
            The commit point once it is not `told_bytes`; None when all is done.

        Raises:
            BlockferryError: what ended the session.
        """
        with self.lock:
            while True:
                if session.error is not None:
                    raise session.error
                if self.committed.offset_bytes != told_bytes:
                    return self.committed.offset_bytes
                if session.succeeded:
                    return None
                self.news.wait()

    def stop(self, error: BlockferryError) -> None:
        """End everything for `error`; the first call decides."""
        with self.lock:
            self.stopped = self.stopped or error
            session = self.session
            self.work.notify_all()
        if session is not None:
            session.close(error, drop=True)
        with self.lock:
            self.news.notify_all()
