"""Stopping: what a signal brings down with it is not told as an error."""

import signal

from workshop import Workshop, load


def test_an_error_after_a_signal_ends_the_run_as_the_signal_does(workshop: Workshop) -> None:
    """A terminal sends Ctrl-C to the compiler's processes as well, and compiling then fails."""
    name = "--trainer.callbacks"
    told = workshop.run(
        *("fit", "--name", "run", "--trainer.max_epochs", "2", "--checkpoints.every_n_steps", "2"),
        *(f"{name}+=workshop.SignalAt", f"{name}.step=6", f"{name}.signal_name=SIGINT"),
        *(f"{name}+=workshop.FailAt", f"{name}.step=6"),
    )
    assert told.status == 128 + signal.SIGINT and told.err == ""
    assert told.line("stopped") == "by SIGINT after step 5"
    assert told.line("go on")
    assert load(workshop.checkpoint("run"))["global_step"] == 5
