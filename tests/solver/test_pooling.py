import pyarrow as pa
from distilabel.pipeline import Pipeline

from eva_stages.core.rows import SCHEMAS
from eva_stages.solver.pooling import PoolPairs


def pairs(**rewards: float) -> pa.Table:
    return pa.Table.from_pylist([{"prompt_id": name, "chosen_reward": value} for name, value in rewards.items()], schema=SCHEMAS["pairs"])


def test_a_prompt_keeps_the_pair_that_it_gave_first() -> None:
    with Pipeline(name="pool"):
        step = PoolPairs()
    pooled_pairs, counts = step.transform(pairs(b=1.0, a=2.0), pairs(c=3.0, a=4.0), pairs(d=5.0, c=6.0, b=7.0))
    assert dict(zip(pooled_pairs["prompt_id"].to_pylist(), pooled_pairs["chosen_reward"].to_pylist(), strict=True)) == {
        "b": 1,
        "a": 2,
        "c": 3,
        "d": 5,
    }
    assert pooled_pairs["prompt_id"].to_pylist() == ["b", "a", "c", "d"] and pooled_pairs.schema == SCHEMAS["pairs"]
    assert counts == {"pair": 4, "repeated": 3}
