"""A fault keeps its cause and its cure, wherever it was raised."""

import pickle

import pytest

from riskpo_openrlhf.integration.faults import RunFault


class Fault(RunFault):
    pass


@pytest.mark.parametrize("kind", [RunFault, Fault])
def test_a_fault_keeps_cause_and_cure_through_pickle_and_says_both(kind):
    copy = pickle.loads(pickle.dumps(kind("The disk is full.", "Free space on /data.")))
    assert type(copy) is kind and (copy.cause, copy.cure) == ("The disk is full.", "Free space on /data.")
    assert str(copy) == "The disk is full. Free space on /data."


def test_ray_wraps_a_fault_into_an_error_that_is_still_a_fault():
    exceptions = pytest.importorskip("ray.exceptions")
    from ray import cloudpickle

    wrapped = exceptions.RayTaskError("fit", "traceback", Fault("No reward", "Mend it.")).as_instanceof_cause()
    copy = cloudpickle.loads(cloudpickle.dumps(wrapped))
    assert isinstance(copy, RunFault) and isinstance(copy.cause, Fault)  # Ray's `cause` is the error itself
    assert (copy.cause.cause, copy.cause.cure) == ("No reward", "Mend it.")
