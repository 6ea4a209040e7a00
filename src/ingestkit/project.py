"""Finds a project's folder, reads its configuration, resolves secrets, and opens what a pipeline names."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from ingestkit import configuration, dbt_sources, layers, variables
from ingestkit.configuration import Configuration, Setting
from ingestkit.errors import ConfigError, StateError
from ingestkit.files import make_folder
from ingestkit.lake import Lake
from ingestkit.layers import Origin
from ingestkit.model import Json, sha256_of
from ingestkit.observe.measured import Measured
from ingestkit.observe.noticed import Noticed
from ingestkit.observe.tracing import Tracing, parent_in
from ingestkit.pipeline import Clock, Pipeline, Progress, Stop
from ingestkit.ports import Alert, Lifecycle, Meter, RunMirror, Source, Store, Transform
from ingestkit.references import Secrets
from ingestkit.session import Session
from ingestkit.settings import (
    AdlsConnection,
    Channel,
    Connection,
    DuckdbConnection,
    EmailChannel,
    LocalConnection,
    OtlpSettings,
    PipelineSettings,
    PostgresqlConnection,
    S3Connection,
    Settings,
    SftpConnection,
    SlackChannel,
    SnowflakeConnection,
    SnsChannel,
    TextfileSettings,
    VaultConnection,
    WebhookChannel,
)
from ingestkit.settings import Lifecycle as LifecycleSettings
from ingestkit.settings import Source as SourceSettings
from ingestkit.shapes import checked, nearest
from ingestkit.states.owner import Owner

if TYPE_CHECKING:
    from ingestkit.sources.ssh import Server
    from ingestkit.states.engine import StateDatabase

Part = TypeVar("Part", bound=BaseModel)
Found = TypeVar("Found")

# What a `type` in the configuration stands for; imported when something of that type is opened. Those with an engine
# of their own, and the stage that has one, are imported when they are first used.
SOURCES = {"files": "ingestkit.sources.files:FilesSource", "vault": "ingestkit.sources.vault:VaultArchives"}
SESSIONS = {"vault": "ingestkit.sources.vault_client:Vault"}
DROPS = {"local": "ingestkit.sources.local:LocalDrop", "sftp": "ingestkit.sources.sftp:open_drop"}
SERVERS = {"sftp": "ingestkit.sources.ssh:Server"}
STORES = {
    "local": "ingestkit.stores.local:LocalStore",
    "overlay": "ingestkit.stores.overlay:OverlayStore",
    "apart": "ingestkit.stores.apart:ApartStore",
    "s3": "ingestkit.stores.s3:opened",
    "adls": "ingestkit.stores.adls:opened",
}
WAREHOUSES = {
    "duckdb": "ingestkit.warehouses.duckdb:DuckdbWarehouse",
    "postgresql": "ingestkit.warehouses.postgresql:opened",
    "snowflake": "ingestkit.warehouses.snowflake:opened",
}
RUN_MIRRORS = {"snowflake": "ingestkit.warehouses.snowflake_runs:opened"}
METERS = {
    "otlp": "ingestkit.observe.otlp:Otlp",
    "statsd": "ingestkit.observe.statsd:Statsd",
    "textfile": "ingestkit.observe.textfile:opened",
}
ALERTS = {
    "email": "ingestkit.observe.mail:Mail",
    "slack": "ingestkit.observe.slack:Slack",
    "sns": "ingestkit.observe.sns:Sns",
    "webhook": "ingestkit.observe.webhook:Webhook",
}
LIFECYCLES = {"adls": "ingestkit.stores.adls_lifecycle:opened", "s3": "ingestkit.stores.s3_lifecycle:opened"}
# Where the extra that brings the driver is not named after the type.
EXTRAS = {"vault": "vault", "otlp": "otel", "s3": "aws", "sns": "aws"}
TRANSFORMS = {"dbt": "ingestkit.transforms.dbt:Dbt"}
STATES = {"sql": "ingestkit.states.engine:StateDatabase"}
QUEUES = {"jsonl": "ingestkit.states.queue:PendingQueue"}
MIRRORS = {"json": "ingestkit.states.mirrors:JsonMirror"}
PASSING = "passing"
"""The folder of scratch that outlives commands: what is apart from the lake until its batch is done."""
FETCHED = "fetched"
"""The other one that does: parts of an archive that is being fetched, so that who is cut off goes on behind them."""
STAGES = {
    "validate": "ingestkit.stages.validate:validate",
    "validate_archive": "ingestkit.stages.validate_archive:validate",
    "prove": "ingestkit.stages.validate_engine:prove",
    "meant": "ingestkit.stages.validate_engine:meant",
}


def find(start: Path) -> Path:
    """The project folder `start` lies in: the nearest one whose `config/` holds settings or pipelines."""
    here = start.absolute()
    for folder in (here, *here.parents):
        if (folder / "config" / "pipelines").is_dir() or configuration.settings_file(folder) is not None:
            return folder
    raise ConfigError(
        f"no project at {here}: neither it nor a folder above has config/settings.yaml",
        hint="run it in a project folder, or name one with --project",
    )


def load(
    root: Path,
    profile: str | None = None,
    env_file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, Any] | None = None,
) -> "Project":
    """The project at `root`. Pipelines are read when asked for, so that a broken one stops no other.

    `env_file` None is the project's `config.env`, where it has one; `flags` are settings by dotted name.
    """
    root = root.absolute()
    path = env_file or root / "config.env"
    in_file = variables.from_file(path, configuration.shown(root, path)) if env_file or path.is_file() else ()
    read = configuration.read(root, profile, in_file, environ, flags or {})
    return Project(root, read, Secrets(root, {**{one.name: one.text for one in in_file}, **environ}))


@dataclass(frozen=True, slots=True)
class Examined:
    """A file of the configuration, and what is wrong with it; one line per problem."""

    subject: str
    problems: tuple[str, ...]


def examined(
    root: Path, profile: str | None = None, env_file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Examined, ...]:
    """Every file of `config/`, looked at without opening anything.

    Settings are looked at in every profile, pipelines in the chosen one: not each of them is meant for all.
    """
    root = root.absolute()
    path = configuration.settings_file(root)
    subject = configuration.shown(root, path or root / "config" / "settings.yaml")
    chosen, problems = _tried(lambda: load(root, profile, env_file, environ))
    found = [Examined(subject, problems)]
    if chosen is None:
        return tuple(found)
    for other in configuration.profiles(root):
        if other != chosen.profile:
            _, problems = _tried(partial(load, root, other, env_file, environ))
            found.append(Examined(f"{subject}, profile {other}", problems))
    for name, file in configuration.pipeline_files(root).items():
        pipeline, problems = _tried(partial(chosen.pipeline, name))
        if pipeline is not None:
            transform = _transform(chosen.secrets, root, pipeline.settings)
            problems = (*_unproven(pipeline), *(_tried(transform.check)[1] if transform is not None else ()))
        found.append(Examined(configuration.shown(root, file), problems))
    return tuple(found)


def _unproven(pipeline: Pipeline) -> tuple[str, ...]:
    """What the engine of validate will not take of a pipeline's contracts."""
    prove = partial(_called, STAGES, "prove")
    each = (_tried(partial(prove, name, model)) for name, model in pipeline.settings.models.items())
    return tuple(problem for _, problems in each for problem in problems)


def _tried(call: Callable[[], Found]) -> tuple[Found | None, tuple[str, ...]]:
    try:
        return call(), ()
    except ConfigError as error:
        return None, tuple(error.message.splitlines())


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder with its settings, as the chosen profile, environment and flags make them."""

    root: Path
    configuration: Configuration
    secrets: Secrets = field(repr=False)

    @property
    def profile(self) -> str:
        return self.configuration.profile

    @property
    def settings(self) -> Settings:
        return self.configuration.settings

    @property
    def folder(self) -> Path:
        """Where the pending queue, the mirror and the sidecars for people live."""
        return self.root / self.settings.state.folder

    def pipelines(self) -> tuple[str, ...]:
        return tuple(configuration.pipeline_files(self.root))

    def pipeline(self, name: str) -> Pipeline:
        """The pipeline, checked; nothing is opened."""
        settings = configuration.pipeline(self.configuration, name)
        return Pipeline(settings, configuration.gate_checks(self.root, settings))

    def explained(self, pipeline: str | None = None) -> tuple[Setting, ...]:
        """Every setting of the project or of one pipeline, with where it came from; references as references."""
        if pipeline is None:
            return configuration.explained(self.settings, self.configuration.tree)
        tree, _ = configuration.pipeline_tree(self.configuration, pipeline)
        return configuration.explained(self.pipeline(pipeline).settings, tree)

    def state(self) -> "StateDatabase":
        """The state database, opened."""
        settings = self.settings.state
        url = self.secrets.resolve(settings.url, "state.url")
        opened: StateDatabase = registered(STATES, "sql").open(
            below_root(url, self.root), settings.busy_timeout.total_seconds()
        )
        return opened

    def open(self, name: str, *, clock: Clock, stop: Stop, progress: Progress, jobs: int | None = None) -> Session:
        """A pipeline with everything it names, opened."""
        config = self.config(self.pipeline(name).settings)
        scratch = self.root / self.settings.scratch / Owner.here().tag()
        for folder, setting in ((self.folder, "state.folder"), (scratch.parent, "scratch")):
            try:
                make_folder(folder)
            except OSError as error:
                raise StateError(
                    f"folder {folder} cannot be made: {error.strerror}", hint=f"name another as {setting}"
                ) from error
        with _closed_by_an_error() as closing:
            state = self.state()
            closing.callback(state.close)
            shared = {
                "settings": self.settings,
                "state": state,
                "queue": registered(QUEUES, "jsonl")(self.folder / "pending_updates.jsonl"),
                "mirror": registered(MIRRORS, "json")(self.folder),
                "root": self.root,
                "folder": self.folder,
                "scratch": scratch,
                "passing": scratch.parent / PASSING,
                "fetched": scratch.parent / FETCHED,
                "clock": clock,
                "stop": stop,
                "progress": progress,
                "jobs": jobs or self.settings.jobs,
                **self._measuring(name),
                "noticed": Noticed(clock.now()) if self.settings.alerts.channels else None,
                "closing": closing,
            }
            return _session(self.secrets, shared, config)

    def rehearse(
        self, name: str, *, clock: Clock, stop: Stop, progress: Progress, jobs: int | None, writes: bool
    ) -> Session:
        """A pipeline opened with a lake of its own over the real one; who `writes` has a copy of the state too."""
        config = self.config(self.pipeline(name).settings)
        folder = self.root / self.settings.scratch / Owner.here().tag() / "rehearsal"
        state = self.settings.state
        url = below_root(self.secrets.resolve(state.url, "state.url"), self.root)
        states, timeout = registered(STATES, "sql"), state.busy_timeout.total_seconds()
        file = folder / "state.db"
        with _closed_by_an_error() as closing:
            closing.callback(self._forget, folder.parent)
            make_folder(folder)
            kept = states.copied(url, file, timeout, clock) if writes else states.to_read(url, file, timeout)
            closing.callback(kept.close)
            shared = {
                "settings": self.settings,
                "state": kept,
                "queue": registered(QUEUES, "jsonl")(folder / "pending_updates.jsonl"),
                # It is compared with the state, as a run does.
                "mirror": registered(MIRRORS, "json")(folder if writes else self.folder),
                "root": self.root,
                "folder": folder,
                "scratch": folder / "scratch",
                "passing": self.root / self.settings.scratch / PASSING,
                "fetched": folder / FETCHED,
                "clock": clock,
                "stop": stop,
                "progress": progress,
                "jobs": jobs or self.settings.jobs,
                "measured": None,
                "tracing": None,
                "noticed": None,
                "closing": closing,
            }
            opened = _session(self.secrets, shared, config)
            over = registered(STORES, "overlay")(registered(STORES, "local")(folder / "lake"), opened.lake.store)
            return replace(opened, lake=replace(opened.lake, store=over, aside=None))

    def _forget(self, scratch: Path) -> None:
        """Remove what a rehearsal stood on."""
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in (scratch.parent, self.folder):
            # A project that never ran has no such folders, and has none now.
            with suppress(OSError):
                folder.rmdir()

    def meters(self, pipeline: str) -> Mapping[str, Callable[[], Meter]]:
        """What opens those that are told figures of a pipeline, by the name of their settings."""
        said = self.settings.metrics
        return {
            kind: partial(_meter, self, kind, one, pipeline)
            for kind in METERS
            if (one := getattr(said, kind)) is not None
        }

    def channels(self) -> Mapping[str, Callable[[], Alert]]:
        """What opens those who are told of incidents, by name."""
        return {name: partial(_channel, self, name, one) for name, one in self.settings.alerts.channels.items()}

    def _measuring(self, pipeline: str) -> dict[str, Any]:
        said, meters = self.settings.metrics, self.meters(pipeline)
        traced = said.otlp is not None and said.otlp.traces
        parent = parent_in(self.secrets.environ.get("TRACEPARENT"))
        return {
            "measured": Measured(meters, said.patience.total_seconds(), said.tags, traced) if meters else None,
            "tracing": Tracing(parent) if traced or parent is not None else None,
        }

    def dbt_target(self, pipeline: str) -> dbt_sources.Target:
        """Where dbt finds the tables of a pipeline; no secret is needed for it."""
        used = self.pipeline(pipeline).settings.warehouse
        connection = self.settings.connections[used]

        def said(name: str, value: str) -> str:
            return str(self.secrets.resolve(value, f"connections.{used}.{name}"))

        match connection:
            case SnowflakeConnection():
                upper = connection.names == "upper"
                database = said("database", connection.database)
                return dbt_sources.Target(said("schema", connection.schema_), database, upper)
            case DuckdbConnection() | PostgresqlConnection():
                return dbt_sources.Target(said("schema", connection.schema_))
            case _:
                raise _unfit("warehouse", connection)

    def server(self, name: str) -> "Server | None":
        """The server that a pipeline's source is on, not spoken to yet; None where it is on none."""
        used = self.pipeline(name).settings.source.connection
        connection = _resolved(self.secrets, self.settings.connections[used], f"connections.{used}")
        return _server(self.root, connection, used, name) if isinstance(connection, SftpConnection) else None

    def lifecycle(self, lake: str) -> "tuple[Lifecycle, LifecycleSettings]":
        """The rules of the service a lake lies in, and what the settings want of them; nothing is asked of it yet."""
        if lake not in self.settings.connections:
            raise ConfigError(
                f"there is no connection {lake}{nearest(lake, self.settings.connections)}", hint="ingestkit config show"
            )
        connection = _resolved(self.secrets, self.settings.connections[lake], f"connections.{lake}")
        match connection:
            case S3Connection():
                made: Lifecycle = _driven(LIFECYCLES, connection.type, connection=connection, root=self.root)
                return made, connection.lifecycle
            case AdlsConnection():
                made = _driven(LIFECYCLES, connection.type, connection=connection, name=lake)
                return made, connection.lifecycle
            case LocalConnection():
                raise ConfigError(
                    f"connection {lake} is a folder of this machine: no service removes anything there by rules",
                    hint="ingestkit clean removes what retention no longer keeps",
                )
            case _:
                raise ConfigError(
                    f"connection {lake} is no lake: its type is {connection.type}", hint="ingestkit config show"
                )

    def config(self, settings: PipelineSettings) -> Json:
        """What a run row keeps: enough to open the same pipeline again, with references, never values."""
        used = sorted({settings.source.connection, settings.lake, settings.warehouse})
        held = {name: _dumped(self.settings.connections[name]) for name in used}
        return {"profile": self.profile, "pipeline": _dumped(settings), "connections": held}


@contextmanager
def _closed_by_an_error() -> Iterator[ExitStack]:
    """What ends all that is opened, in the session's own time, or at once where it does not come to one."""
    closing = ExitStack()
    try:
        yield closing
    except BaseException:
        closing.close()
        raise


def _session(secrets: Secrets, shared: Mapping[str, Any], config: Json) -> Session:
    settings = _kept(PipelineSettings, config["pipeline"])
    held = _kept(Settings, {"connections": config["connections"]}).connections
    connections = {name: _resolved(secrets, one, f"connections.{name}") for name, one in held.items()}
    root = shared["root"]
    lake = _lake(_store(root, connections[settings.lake], shared), settings, shared)
    asked = _resolved(secrets, settings.source, f"pipelines.{settings.pipeline}.source")
    return Session(
        **{name: value for name, value in shared.items() if name not in ("passing", "fetched")},
        pipeline=Pipeline(settings, configuration.gate_checks(root, settings)),
        config=config,
        config_hash=sha256_of(config),
        source=_source(root, connections[asked.connection], asked, settings, shared),
        lake=lake,
        **_warehouse(root, connections[settings.warehouse], shared, lake, connections[settings.lake]),
        open_run_mirror=_run_mirror(root, connections[settings.warehouse], shared),
        validate=partial(_called, STAGES, "validate" if settings.tables is None else "validate_archive"),
        prove=partial(_called, STAGES, "prove"),
        meant=partial(_called, STAGES, "meant"),
        transform=_transform(secrets, root, settings),
        reopen=partial(_session, secrets, shared),
    )


def _source(
    root: Path, connection: Connection, asked: SourceSettings, settings: PipelineSettings, shared: Mapping[str, Any]
) -> Source:
    if isinstance(connection, VaultConnection) != (asked.type == "vault"):
        raise _unfit(asked.connection, connection)
    match connection:
        case VaultConnection():
            return _vault(root, connection, asked, settings, shared)
        case LocalConnection():
            drop = _called(DROPS, connection.type, root / connection.path)
        case SftpConnection():
            if connection.password is not None:
                shared["progress"].warned(f"connection {asked.connection} logs in by a password; a key is safer")
            drop = _called(DROPS, connection.type, _server(root, connection, asked.connection, settings.pipeline))
            shared["closing"].callback(drop.links.close)
        case _:
            raise _unfit(asked.connection, connection)
    made: Source = registered(SOURCES, asked.type)(drop, asked, settings.models)
    return made


def _vault(
    root: Path,
    connection: VaultConnection,
    asked: SourceSettings,
    settings: PipelineSettings,
    shared: Mapping[str, Any],
) -> Source:
    aside = {name: shared[name] for name in ("clock", "progress")}
    ca_file = None if connection.ca_file is None else root / connection.ca_file
    said = connection.model_copy(update={"ca_file": ca_file})
    vault = _driven(SESSIONS, connection.type, connection=said, name=asked.connection, **aside)
    shared["closing"].callback(vault.close)
    folder = shared["fetched"] / settings.pipeline
    made: Source = _called(
        SOURCES, "vault", vault=vault, settings=asked, pipeline=settings.pipeline, folder=folder, **aside
    )
    return made


def _server(root: Path, connection: SftpConnection, name: str, pipeline: str) -> "Server":
    try:
        made: Server = _called(SERVERS, connection.type, connection, root, name, pipeline)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"connection {name} is of type {connection.type}, which needs the package {error.name}",
            hint="pip install 'ingestkit[sftp]'",
        ) from error
    return made


def _aside(shared: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shared[name] for name in ("scratch", "stop")}


def _store(root: Path, connection: Connection, shared: Mapping[str, Any]) -> Store:
    made: Any
    match connection:
        case LocalConnection():
            made = registered(STORES, connection.type)(root / connection.path)
        case S3Connection():
            made = _driven(STORES, connection.type, connection=connection, root=root, **_aside(shared))
            shared["closing"].callback(made.close)
        case AdlsConnection():
            made = _driven(STORES, connection.type, connection=connection, **_aside(shared))
            shared["closing"].callback(made.close)
        case _:
            raise _unfit("lake", connection)
    opened: Store = made
    return opened


def _lake(store: Store, settings: PipelineSettings, shared: Mapping[str, Any]) -> Lake:
    if settings.keep == "all":
        return Lake(store, settings.layout)
    aside = registered(STORES, "local")(shared["passing"])
    return Lake(registered(STORES, "apart")(aside, store), settings.layout, aside)


def _warehouse(
    root: Path, connection: Connection, shared: Mapping[str, Any], lake: Lake, lake_connection: Connection
) -> dict[str, Any]:
    match connection:
        case DuckdbConnection():
            opened = partial(
                _called,
                WAREHOUSES,
                connection.type,
                path=root / connection.path,
                schema=connection.schema_,
                lock_timeout=connection.lock_timeout.total_seconds(),
                memory_limit=shared["settings"].memory_limit,
                threads=os.cpu_count() or 1,
                clock=shared["clock"],
                progress=shared["progress"],
                scratch=shared["scratch"],
            )
            return {"open_warehouse": cache(opened), "warehouse_file": root / connection.path}
        case PostgresqlConnection() | SnowflakeConnection():
            opened = partial(
                _driven,
                WAREHOUSES,
                connection.type,
                connection=connection,
                root=root,
                memory_limit=shared["settings"].memory_limit,
                threads=os.cpu_count() or 1,
                clock=shared["clock"],
                scratch=shared["scratch"],
                **({"lake": lake, "lake_connection": lake_connection} if connection.type == "snowflake" else {}),
            )
            return {"open_warehouse": cache(opened), "warehouse_file": None}
        case _:
            raise _unfit("warehouse", connection)


def _transform(secrets: Secrets, root: Path, settings: PipelineSettings) -> Transform | None:
    said = settings.dbt
    if said is None:
        return None
    project = root / said.project.expanduser()
    made: Transform = _called(
        TRANSFORMS,
        "dbt",
        # A bare name is looked for on PATH.
        program=str(root / Path(said.program).expanduser()) if "/" in said.program else said.program,
        project=project,
        profiles=project if said.profiles is None else root / said.profiles.expanduser(),
        target=said.target,
        select=said.select,
        vars=said.vars,
        environ=secrets.environ,
    )
    return made


def _run_mirror(root: Path, connection: Connection, shared: Mapping[str, Any]) -> Callable[[], RunMirror] | None:
    match connection:
        case SnowflakeConnection(mirror_runs=True):
            opened = partial(
                _driven, RUN_MIRRORS, connection.type, connection=connection, root=root, clock=shared["clock"]
            )
            return cache(opened)
        case _:
            return None


def _meter(project: Project, kind: str, said: BaseModel, pipeline: str) -> Meter:
    match _resolved(project.secrets, said, f"metrics.{kind}"):
        case OtlpSettings() as otlp:
            given: dict[str, Any] = {
                "endpoint": otlp.endpoint,
                "headers": otlp.headers,
                "ca_file": project.root / otlp.ca_file if otlp.ca_file is not None else None,
                "traces": otlp.traces,
                "patience": project.settings.metrics.patience.total_seconds(),
            }
        case TextfileSettings() as textfile:
            given = {"folder": project.root / textfile.folder, "pipeline": pipeline}
        case other:
            given = dict(other)
    try:
        made: Meter = _called(METERS, kind, **given)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs a package that is not installed ({error.name})",
            hint=f"pip install 'ingestkit[{EXTRAS[kind]}]'",
        ) from error
    return made


def _channel(project: Project, name: str, said: Channel) -> Alert:
    patience = project.settings.alerts.patience.total_seconds()
    match _resolved(project.secrets, said, f"alerts.channels.{name}"):
        case SnsChannel() as sns:
            given: dict[str, Any] = {"topic": sns.topic, "region": sns.region, "endpoint": sns.endpoint_url}
        case SlackChannel() | WebhookChannel() | EmailChannel() as other:
            file = project.root / other.ca_file if other.ca_file is not None else None
            given = {key: value for key, value in other if key != "type"} | {"ca_file": file}
    try:
        made: Alert = _called(ALERTS, said.type, **given, patience=patience)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"needs a package that is not installed ({error.name})",
            hint=f"pip install 'ingestkit[{EXTRAS[said.type]}]'",
        ) from error
    return made


def _unfit(place: str, connection: Connection) -> ConfigError:
    return ConfigError(f"{place}: a connection of type {connection.type} does not serve here", hint=layers.PUT_RIGHT)


def registered(registry: Mapping[str, str], kind: str) -> Any:
    """The class a registry names, imported now and not before."""
    module, name = registry[kind].split(":")
    return getattr(import_module(module), name)


def _called(registry: Mapping[str, str], kind: str, *given: Any, **named: Any) -> Any:
    """What a registry names, called; imported now and not before."""
    return registered(registry, kind)(*given, **named)


def _driven(registry: Mapping[str, str], kind: str, **named: Any) -> Any:
    """As `_called`, of something that an extra brings the driver for."""
    try:
        return _called(registry, kind, **named)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a connection is of type {kind}, and its driver is not installed ({error.name})",
            hint=f"pip install 'ingestkit[{EXTRAS.get(kind, kind)}]'",
        ) from error


def below_root(url: str, root: Path) -> str:
    """A SQLite URL with its file below `root`, where it names a relative one; any other URL as it is."""
    return re.sub(r"^(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)(?=.)", lambda match: f"{match[1]}{root}/", url)


def _dumped(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True)


def _resolved(secrets: Secrets, part: Part, key: str) -> Part:
    """The same settings with their references resolved: for an adapter's eyes, never to be shown or stored."""
    said = _dumped(part)
    found = secrets.resolve(said, key)
    if found == said:
        return part
    tree = layers.built(found, Origin("secret", "with its references resolved"))
    resolved, problems = checked(type(part), tree, (key,))
    if resolved is None:
        raise ConfigError("\n".join(problems), hint="look at the variables and files it refers to")
    return resolved


def _kept(model: type[Part], config: Any) -> Part:
    """Settings as a run row kept them."""
    found, problems = checked(model, layers.built(config, Origin("run", "the run's own configuration")))
    if found is None:
        raise ConfigError("\n".join(problems), hint="this run was begun by another version; finish it with that one")
    return found
