//! Process lifecycle: startup, shared resources of the services, signals and graceful shutdown.

mod health_check;
mod nofile_limit;
mod shutdown_signals;

use std::{convert::Infallible, error::Error as StdError, io::Write, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{BoxError, Layer, Service, ServiceBuilder};

use self::shutdown_signals::ShutdownSignals;
use crate::{
    admin::{self, AdminHosts, AdminPorts},
    config::{self, Invocation, Loaded, Validate},
    health::Readiness,
    telemetry::{self, Telemetry, TrustBoundary},
};
use palisade_resilience::{
    clock::{Clock, SystemClock},
    naming::Naming,
    redact,
    respond::{Protocol, RespondLayer},
    setting::Invalid,
    task,
};
use palisade_transport::{
    network,
    server::{self, accept},
};

/// Exit code for an invalid configuration (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code after a second signal: 128 + SIGINT.
const EXIT_FORCED: i32 = 130;
/// Permissions that new files do not have: all of group and others.
const PRIVATE_UMASK: u32 = 0o077;
/// Drain time of admin ports, milliseconds.
const ADMIN_DRAIN_MS: u64 = 100;

/// Configuration common to all services.
pub trait ServiceConfig: Validate {
    /// Settings that `--help` shows, by key; `--help-all` shows all.
    const COMMON_SETTINGS: &'static [&'static str];

    /// Traces and logs.
    fn telemetry(&self) -> &telemetry::Config;
    /// Server limits, including the shutdown times.
    fn server(&self) -> &server::Config;
    /// Address of the admin port that reports readiness.
    fn admin_listen(&self) -> SocketAddr;
    /// Whether recent traces stay in memory, see [`telemetry::recent`].
    fn keeps_traces(&self) -> bool {
        false
    }
}

/// `main` of a service: installs the names of the application, loads the configuration, installs
/// telemetry, calls `start`, and runs until shutdown.
pub fn run<T, F, Fut>(naming: Naming, name: &'static str, about: &'static str, boundary: TrustBoundary, start: F) -> ExitCode
where
    T: ServiceConfig + DeserializeOwned + JsonSchema,
    F: FnOnce(T, Process) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    if let Err(error) = naming.install() {
        return exit_with_error(name, &error, 1);
    }
    run_configured(name, &[name], boundary, config::from_args((name, about, T::COMMON_SETTINGS), std::env::args_os()), start)
}

/// As [`run`] with installed names, a loaded configuration and a list of services in the process.
pub fn run_configured<T, F, Fut>(
    name: &'static str,
    services: &[&'static str],
    boundary: TrustBoundary,
    command: Result<Loaded<T>, config::Error>,
    start: F,
) -> ExitCode
where
    T: ServiceConfig,
    F: FnOnce(T, Process) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    // The stores, and every other file of the process, belong to its user alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(PRIVATE_UMASK));
    let Loaded { invocation, warnings } = match command {
        Err(config::Error::Usage(error)) => {
            // Help is printed to standard output with exit code 0, a usage error to standard error
            // with 2.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
        Err(error) => return exit_with_error(name, &error, EXIT_CONFIG),
        Ok(loaded) => loaded,
    };
    let config = match invocation {
        Invocation::Check(_) => {
            for warning in warnings {
                let _ = writeln!(std::io::stderr(), "{name}: {warning}");
            }
            return ExitCode::SUCCESS;
        }
        Invocation::Help(text) => {
            let _ = write!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Invocation::HealthCheck(config) => return health_check::run(config.admin_listen()),
        Invocation::Run(config) => config,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_with_error(name, &error, 1),
    };
    runtime.block_on(async {
        let mut signals = match ShutdownSignals::install() {
            Ok(signals) => signals,
            Err(error) => return exit_with_error(name, &error, 1),
        };
        let telemetry = match Telemetry::install((name, services), boundary, config.telemetry(), config.keeps_traces()) {
            Ok(telemetry) => telemetry,
            Err(error) => return exit_with_error(name, &error, EXIT_CONFIG),
        };
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let process = Process::new(telemetry);
        let limits = config.server().clone();
        nofile_limit::raise_nofile_limit(limits.max_connections * services.len());
        let started = tokio::select! {
            started = start(config, process.clone()) => Some(started),
            // Drops the rest of the start. The parts already started are shut down like any other.
            () = signals.received() => None,
        };
        match started {
            Some(Ok(())) => signals.received().await,
            Some(Err(error)) => return exit_with_error(name, &*error, EXIT_CONFIG),
            None => {}
        }
        process.shut_down(signals, &limits).await;
        ExitCode::SUCCESS
    })
}

fn exit_with_error(name: &str, error: &dyn StdError, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some errors include the text of their cause.
        let cause_text = error.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr(), "{name}: {}", redact::text(&text));
    ExitCode::from(code)
}

/// Resources shared by the services of a process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the process must stop accepting requests.
    pub shutdown: CancellationToken,
    /// Logs, traces and metrics.
    pub telemetry: Telemetry,
    /// Admin ports by service.
    pub admin_ports: AdminPorts,
    tasks: TaskTracker,
    /// Registrations in service discovery, which are the first to be cancelled at shutdown.
    registrations: (TaskTracker, CancellationToken),
    /// Admin ports, which stop last, so that readiness and metrics stay available during shutdown.
    admin: (TaskTracker, CancellationToken),
    readiness: Arc<parking_lot::Mutex<Vec<Readiness>>>,
}

impl Process {
    /// Creates a process with the installed `telemetry`.
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            clock: Arc::new(SystemClock),
            shutdown: CancellationToken::new(),
            telemetry,
            admin_ports: AdminPorts::default(),
            tasks: TaskTracker::new(),
            registrations: (TaskTracker::new(), CancellationToken::new()),
            admin: (TaskTracker::new(), CancellationToken::new()),
            readiness: Arc::default(),
        }
    }

    /// Creates the readiness of one service. It turns to not ready at the first signal.
    pub fn readiness(&self) -> Readiness {
        let readiness = Readiness::default();
        self.readiness.lock().push(readiness.clone());
        readiness
    }

    /// Waits until every service is ready, for at most `limit`.
    pub async fn until_ready(&self, limit: Duration) {
        let mut all: Vec<_> = self.readiness.lock().iter().map(Readiness::subscribe).collect();
        let ready = async {
            for readiness in &mut all {
                // Cannot fail: the sender lives as long as the process.
                let _ = readiness.wait_for(|ready| *ready).await;
            }
        };
        let _ = tokio::time::timeout(limit, ready).await;
    }

    /// Spawns work that shutdown waits for. It must end by itself after [`Self::shutdown`].
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(task::spawn(self.tasks.track_future(work)));
    }

    /// As [`Self::run`] for work that ends first: its token is cancelled at the first signal, and
    /// ports accept requests until it has ended. It must end soon after the cancellation.
    pub fn spawn_registration<Fut>(&self, work: impl FnOnce(CancellationToken) -> Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (tracker, deregister) = &self.registrations;
        drop(task::spawn(tracker.track_future(work(deregister.clone()))));
    }

    /// Serves `stack` until shutdown, and prints its address to standard output.
    pub fn serve<S, R>(
        &self,
        (name, protocol): (&str, Protocol),
        address: SocketAddr,
        stack: S,
        config: &server::Config,
    ) -> Result<SocketAddr, Invalid>
    where
        S: Service<Request<accept::RequestBody>, Response = Response<R>, Error = Infallible, Future: Send> + Clone + Send + 'static,
        R: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let tls = config.tls.acceptor(protocol).map_err(|error| config.tls.invalid(&error).in_section("server"))?;
        if let Some(network) = network::installed() {
            let connections = accept::Connections::new("public", protocol, config, tls);
            self.run(accept::serve_incoming(network.listen(address), connections, stack, self.shutdown.clone()));
            return Ok(address);
        }
        let port = accept::Listener { tls, ..bind("listen", address)?.into() };
        let address = print_listen_address(name, if port.tls.is_some() { "https" } else { "http" }, &port.listener)
            .map_err(|error| unusable_address("listen", address, &error))?;
        let (config, shutdown) = (config.clone(), self.shutdown.clone());
        self.run(async move { accept::serve(port, protocol, stack, &config, shutdown).await });
        Ok(address)
    }

    /// Serves an admin port and prints its address to standard output. `hosts` is the setting
    /// `admin_hosts`.
    pub fn serve_admin(
        &self,
        name: &'static str,
        (address, hosts): (SocketAddr, &str),
        readiness: Readiness,
        extra_routes: Router,
    ) -> Result<SocketAddr, Invalid> {
        if network::installed().is_some() {
            // An admin port serves operators, which a simulation does not have.
            return Ok(address);
        }
        let listener = bind("admin_listen", address)?;
        let address = print_listen_address(&format!("{name}-admin"), "http", &listener)
            .map_err(|error| unusable_address("admin_listen", address, &error))?;
        let extra_routes = self.admin_ports.open(name, address, extra_routes);
        let router = RespondLayer(Protocol::Http).layer(admin::router(
            name,
            AdminHosts::parse(hosts)?,
            readiness,
            self.telemetry.clone(),
            extra_routes,
        ));
        let router =
            ServiceBuilder::new().map_request(|request: Request<accept::RequestBody>| request.map(axum::body::Body::new)).service(router);
        let config = server::Config { drain_timeout_ms: ADMIN_DRAIN_MS, ..server::Config::default() };
        let port = accept::Listener { label: "admin", ..listener.into() };
        let (tracker, stop) = self.admin.clone();
        let serving = async move { accept::serve(port, Protocol::Http, router, &config, stop).await };
        drop(task::spawn(tracker.track_future(serving)));
        Ok(address)
    }

    /// Shuts down after the first signal, in order: not ready, deregistration, lame duck, drain,
    /// flush. A second signal exits at once.
    async fn shut_down(self, mut signals: ShutdownSignals, config: &server::Config) {
        tracing::info!("shutdown signal received");
        drop(task::spawn(async move {
            signals.received().await;
            // Safe, because all state is crash-safe.
            std::process::exit(EXIT_FORCED);
        }));
        for readiness in self.readiness.lock().iter() {
            readiness.drain();
        }
        let (registrations, deregister) = &self.registrations;
        deregister.cancel();
        registrations.close();
        registrations.wait().await;
        tokio::time::sleep(Duration::from_millis(config.lame_duck_ms)).await;
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let (admin, stop) = &self.admin;
        stop.cancel();
        admin.close();
        admin.wait().await;
        self.telemetry.flush().await;
        tracing::info!("process stopped");
    }
}

/// Binds the address of the setting `key`.
fn bind(key: &'static str, address: SocketAddr) -> Result<tokio::net::TcpListener, Invalid> {
    accept::bind(address).map_err(|error| unusable_address(key, address, &error))
}

fn unusable_address(key: &'static str, address: SocketAddr, error: &std::io::Error) -> Invalid {
    Invalid::new(key, format!("cannot listen on {address}: {error}"))
}

/// Prints the listen address of `name` to standard output and returns it, for callers that bind
/// port 0.
fn print_listen_address(name: &str, scheme: &str, listener: &tokio::net::TcpListener) -> std::io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let mut stdout = std::io::stdout().lock();
    // Ignores a closed standard output.
    let _ = writeln!(stdout, "listening {name} {scheme}://{address}").and_then(|()| stdout.flush());
    Ok(address)
}
