"""Is a worker's process: told what to do on standard input, a line of JSON at a time, it answers on standard output.

It ends when its input does: whoever hands out has done, or was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue

from segdeploy.run.crew import Answer, Order, error_in_words


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever hands out

    def answer(words: Answer) -> None:
        answers.write(json.dumps(words) + "\n")
        answers.flush()

    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=pass_lines_on, args=(lines,), daemon=True).start()
    with suppress(BrokenPipeError):
        try:
            told = json.loads(lines.get())
            worker = Order(told["opener"], told["setup"]).opened(told["worker"])
            answer({"ready": worker.batch})
            while True:
                for words in worker.work(json.loads(lines.get())):
                    answer(words)
        except Exception as error:  # noqa: BLE001 # told to whoever hands out, who raises it
            answer(error_in_words(error))


def pass_lines_on(lines: SimpleQueue[bytes]) -> None:
    """Pass lines on; end the process at once when there are no more: nobody would hear of what it does then."""
    for line in sys.stdin.buffer:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
