"""The accelerate launch file of a training: how many processes on how many machines, and what starts around them."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from eva_stages.core.decoding import decode_yaml, short
from eva_stages.core.errors import ConfigError
from eva_stages.core.text_table import count_text

PLACE = "solver.training.runtime.launch"


@dataclass(frozen=True)
class LaunchFile:
    """What eva needs to know of a launch file. accelerate reads the rest from `path`."""

    path: Path
    processes: int = 1
    machines: int = 1
    distributed_type: str = "NO"
    use_cpu: bool = False

    @property
    def is_single(self) -> bool:
        """Whether it starts one process without a distributed backend."""
        return self.distributed_type == "NO" and self.processes == self.machines == 1

    @property
    def gpus_per_machine(self) -> int:
        return 0 if self.use_cpu else self.processes // self.machines


def launch_path(launch: str) -> Path:
    """The launch file of a packaged name or a path.

    Raises:
        ConfigError: if the file does not exist, with the packaged names.
    """
    packaged_folder = Path(str(resources.files("configs") / "accelerate"))
    path = Path(launch) if Path(launch).is_file() else packaged_folder / f"{launch}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in packaged_folder.glob("*.yaml"))
        raise ConfigError([f"{PLACE}: there is no launch file {launch!r}; packaged: {', '.join(names)}"])
    return path.resolve()


def read_launch_file(launch: str) -> LaunchFile:
    """Parse the launch file of a packaged name or a path.

    Raises:
        ConfigError: if the file does not exist, is not a YAML mapping, or a number of processes or machines is not a positive integer,
        or is not the number that accelerate would start.
    """
    path = launch_path(launch)
    place = f"{PLACE}: {path}"
    try:
        settings, _ = decode_yaml(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, OSError) as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if not isinstance(settings, dict):
        raise ConfigError([f"{place} does not contain a mapping; write one with `accelerate config`"])
    processes, machines = settings.get("num_processes", 1), settings.get("num_machines", 1)
    for name, count in (("num_processes", processes), ("num_machines", machines)):
        if not isinstance(count, int) or count < 1:
            raise ConfigError([f"{place}: {name} is {short(count)}; it must be an integer of at least 1"])
    distributed_type = settings.get("distributed_type") or "NO"  # unquoted, YAML's NO is false
    if distributed_type == "MULTI_CPU" and processes > 1:
        raise ConfigError(
            [
                f"{place}: accelerate starts one process of MULTI_CPU, not num_processes: {processes}; give distributed_type: MULTI_GPU "
                "with use_cpu: true, as in the packaged cpu_2"
            ]
        )
    return LaunchFile(path, processes, machines, str(distributed_type), bool(settings.get("use_cpu")))


def missing_gpus(launch: str, gpus: int) -> tuple[str, str] | None:
    """What is wrong, and what to do, if a launch file for one machine needs more than the `gpus` that this one has."""
    file = read_launch_file(launch)
    if file.machines > 1 or file.gpus_per_machine <= gpus:
        return None
    advice = f"copy {file.path} with num_processes: {gpus}, and give its path" if gpus else "use cpu, or cpu_2"
    return f"{launch} needs {count_text(file.gpus_per_machine, 'GPU')}; this machine has {gpus or 'none'}", advice
