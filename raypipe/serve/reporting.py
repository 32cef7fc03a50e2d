"""The language model of a reporter replica, with as many adapters as the config names.

In: a config. Out: the stage Describe, once a adapter, all over one engine.
Does not know: Ray, which adapter a request asks for.
"""

from raypipe.config import RaypipeConfig
from raypipe.report.adapter import adapter_id
from raypipe.report.engine import Engine
from raypipe.report.reporter import Reporter, start_engine
from raypipe.stages import Describe


class Describers:
    """One engine, and a Describe for each adapter.

    Args:
        config: the pipeline; its adapters are loaded with the engine.

    Raises:
        ConfigError: the model or an adapter is not there.
        EngineError: the engine did not start.
    """

    def __init__(self, config: RaypipeConfig) -> None:
        self._config = config
        self._engine: Engine | None = start_engine(config.report)
        self.default = self._describe(config)

    def of(self, adapter: str) -> Describe:
        """Describe by an adapter of the config."""
        if adapter == adapter_id(self._config.report):
            return self.default
        report = self._config.report.model_copy(update={"adapter": adapter})
        return self._describe(self._config.model_copy(update={"report": report}))

    def close(self) -> None:
        """Stop the engine."""
        if self._engine is not None:
            self._engine.close()

    def _describe(self, config: RaypipeConfig) -> Describe:
        return Describe(config, Reporter(config.report, self._engine))
