"""A base class for test steps that replace the critique."""

from distilabel.steps import Step


class CritiqueStep(Step):
    """A step with the columns of a critique; `work` is the folder of the attempt."""

    work: str

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id"]

    @property
    def outputs(self) -> list[str]:
        return ["critique", "failure"]
