"""The written list of human interests that the retrieval miner chooses from."""

from importlib.resources import files


def interest_list() -> list[str]:
    """Return the phrases of ``interest_list.txt``, in file order.

    A few hundred interests of home, style, beauty, sport, office, hobbies, film and values, written by hand for this
    project. They were not taken from the latent interests of the atelier catalogue, so that agreement with those is a
    measurement.
    """
    lines = files("trialign.describe").joinpath("interest_list.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
