"""All campaigns in the order in which they run, and the figures that nothing here can measure."""

from stress import flat, full_disk, kills, recovery, resuming, second, signals, studio
from stress.plan import Campaign
from stress.rows import Row
from stress.suite import Suite, campaign_of

SUITES = (
    Suite(
        "F1",
        "every operation of save, replace, prune and log append fails in turn, in every way: old state or new",
        ">= 1,000 points, 0 lost",
        (
            "runs/test_atomic.py::test_a_failed_publish_leaves_the_old_folder_or_the_new_one",
            "runs/test_atomic.py::test_a_failed_replacement_leaves_the_old_file_or_the_new_one",
            "runs/test_atomic.py::test_what_is_half_deleted_has_lost_its_name",
            "runs/test_atomic.py::test_killed_at_every_operation",
            "runs/test_checkpoints.py::test_whatever_fails_the_checkpoint_before_is_there",
            "runs/test_log.py::test_whatever_fails_no_record_is_lost_or_torn",
        ),
    ),
    Suite(
        "F2",
        "power cuts: what was never flushed is lost, reads as zeros, or in part; never loads as something else",
        ">= 700, 0 wrong",
        (
            "runs/test_atomic.py::test_a_power_cut_leaves_the_old_folder_or_the_new_one",
            "runs/test_checkpoints.py::test_no_power_cut_makes_a_wrong_checkpoint",
        ),
        every=False,
    ),
    Suite(
        "F3",
        "SIGKILL at random moments of a process that does nothing but save, prune or append",
        "0 lost",
        (
            "runs/test_atomic.py::test_killed_at_random_moments",
            "runs/test_checkpoints.py::test_killed_while_saving",
            "runs/test_log.py::test_killed_while_appending",
        ),
        every=False,
    ),
    Suite(
        "F4",
        "one process stopped after a step and resumed: every loss and tensor is that of the undisturbed training",
        "160 / 160",
        ("training/test_trainer.py::test_some_steps_and_resume_equal_all_bit_for_bit",),
    ),
    Suite(
        "F5",
        "1, 2, 4 and 8 processes see the same pictures, labels, timesteps and noise",
        "all equal",
        ("training/test_elastic.py::test_any_number_of_processes_sees_the_same",),
        faults=False,
    ),
    Suite(
        "F7",
        "one of two processes is killed or stopped, its launcher dies, the cable is cut: the others end in words",
        "100 / 100, 95 of 100 within 15 s, no orphans",
        ("commands/test_processes_gone.py",),
        every=False,
    ),
    Suite(
        "F9",
        "checkpoints cut at every byte, with flipped bits, zeroed, swapped, forged: refused in one line, or identical",
        "10,000 / 10,000",
        ("runs/test_damage.py",),
        every=False,
    ),
    Suite(
        "F12",
        "NaN, infinities in pictures, loss, gradient, weight, average, optimiser, on one of two, fp16's scale: "
        "seen in the step, never applied nor saved",
        "60 / 60",
        ("training/test_not_finite.py", "commands/test_train_not_finite.py"),
    ),
    Suite(
        "F13",
        "as many sound checkpoints as shall be kept, whichever operation of a prune fails",
        ">= keep, always",
        ("runs/test_checkpoints.py::test_as_many_sound_ones_as_shall_be_kept_at_every_moment_of_a_prune",),
        workers=0,
    ),
    Suite(
        "F21",
        "files that a stranger wrote, with code to run, sizes that lie, values of other types, wherever a run has "
        "a value: done or refused in one line, no canary",
        "0 canaries",
        ("runs/test_hostile.py", "runs/test_converting.py", "data/test_arrays.py"),
    ),
    Suite(
        "F21",
        "every source file: no pickle, eval, unsafe YAML, shell or unpacking; PyTorch files in two places",
        "0 calls",
        ("test_floors.py::test_nothing_can_run_code_from_a_file", "test_floors.py::test_what_runs_code_is_found"),
        workers=0,
        faults=False,
    ),
    Suite(
        "F11",
        "pictures that are cut, bombs, of other types or lie about their size: named, counted, left out or refused",
        "500 / 500",
        ("data/test_pictures.py", "data/test_picture_folder.py"),
    ),
    Suite(
        "F18",
        "callers who leave, cancel or queue: their worker is free within a step, nobody is overtaken",
        "100 % of the excess refused",
        ("studio/test_studio_leaving.py", "studio/test_studio_load.py", "studio/test_studio_shared.py"),
        workers=0,
    ),
    Suite(
        "F19",
        "hostile requests to a running studio: routes, names, origins, sizes, bodies, values; no trace, still at work",
        "100 / 100",
        ("studio/test_studio_guard.py",),
        workers=0,
    ),
    Suite(
        "F20",
        "image bombs and uploads of other types: refused by the header, neither time nor memory",
        "<= 0.1 s, <= 16 MB",
        ("studio/test_studio_uploads.py",),
        workers=0,
    ),
)
BY_TESTS = [(f"{suite.figure} tests", campaign_of(suite)) for suite in SUITES]

CAMPAIGNS: list[tuple[str, Campaign]] = [
    *BY_TESTS[:3],
    ("F3 kills", kills.campaign),
    ("F6 signals", signals.campaign),
    ("F8 full disk", full_disk.campaign),
    *BY_TESTS[3:],
    ("F4 two processes", resuming.exact),
    ("F5 handed over", resuming.shared),
    ("F14 recovery", recovery.campaign),
    ("F16 studio", studio.campaign),
    ("F22 second trainer", second.campaign),
    ("flat", flat.campaign),
]

NOT_HERE = (
    Row("F10", "mutated headers and parsers without a foreign exception", target="10 M", reason="no fuzzer here yet"),
    Row(
        "F15", "training stall per save", target="<= 1 % of step time", reason="means nothing for a network this small"
    ),
    Row(
        "F17",
        "calls a second at call 10,000 and at call 1,000",
        target=">= 0.95",
        reason="takes longer than all the rest",
    ),
    Row("F23", "mutants of the checkpoint modules killed", target=">= 95 %", reason="mutation testing takes hours"),
    Row("F25", "advisories of dependencies", target="0", reason="needs a network"),
)
