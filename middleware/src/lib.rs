//! Tower layers that keep a service up, around every request that it takes and every call that it makes, over HTTP and gRPC alike.
//!
//! They know no route, message or database. Policy comes from a [method table](method_table), which says who may call what, and from
//! configuration. A refusal is one typed [`Rejection`](rejection::Rejection) until the edge of the stack, where [`respond`] writes it in
//! the words of the protocol. `examples/http_service.rs` and `examples/grpc_service.rs` are whole services in about ten lines of it.
//!
//! # The server stack
//!
//! [`server::stack`]. A request passes downwards, its answer upwards; whoever refuses answers from where it stands.
//!
//! ```text
//!        connection          limits on streams, headers, resets and silence     server::accept
//!            |
//!   1  request context       who asks for what: id, method, attempts so far     request_context
//!   2  span                  continues the caller's trace                       trace
//!   3  metrics               duration and outcome of everything below           metrics
//!   4  respond               refusals become problems or statuses               respond
//!   5  deadline              one timer until the last byte of the answer        deadline
//!   6  load shedding         a hard cap on requests in flight                   load_shed
//!   7  address limit         how much one address may ask (HTTP)                rate_limit
//!   8  authentication        the bearer token becomes a principal               auth
//!   9  authorization         the method table, default deny                     auth
//!  10  rate limit            how much one principal may ask                     rate_limit
//!  11  streams               how many, how old, and gone when the connection is     streams
//!  12  adaptive limit        what the handler can bear, found by its latency    adaptive_limit
//!  13  panics                a panic is one refused request                     catch_panic
//!  14  faults                injected on purpose, as if the handler had them    fault
//!  15  scope                 the handler finds all of the above                 context
//!            |
//!         handler
//! ```
//!
//! Why in this order, and what breaks in another:
//!
//! - **Span and metrics stand around all that refuses.** Inside the deadline they would be dropped with the work and never learn of a
//!   timeout; inside shedding they would show a calm service while callers are turned away.
//! - **The deadline is outside everything that waits.** A timer inside a queue gives those who waited longest as much time as the others,
//!   for work that nobody waits for any more.
//! - **The cap and the address limit come before tokens.** To verify a signature costs some hundred times what a refusal costs: the other
//!   way round a flood of bad tokens takes the processor from the callers with good ones.
//! - **The rate of a principal is limited before whatever is shared.** Behind a queue, one greedy caller has filled it before he is told.
//! - **The adaptive limit is next to the handler**, whose latency it measures; with the crypto inside it would measure that.
//! - **Panics are caught inside metrics and permits**, so that they see an answer, and a permit comes back.
//! - **Faults stand in the handler's place**: the layers are to be tried, so none may stand between them and the fault.
//!
//! # The client stack
//!
//! [`client::connect`], around a generated tonic client, and [`client::http()`], for HTTP. The upper half runs once per call, the lower
//! once per attempt.
//!
//! ```text
//!     generated client, or a request
//!            |
//!   1  span                  of the logical call                                trace
//!   2  metrics               as the caller sees it, retries included            metrics
//!   3  respond               refusals become answers that carry their reason    respond
//!   4  total deadline        what the request at hand has left                  deadline
//!   5  bulkhead              a cap on the calls to one target, no queue         bulkhead
//!   6  retry                 seldom, briefly, within a budget                   retry
//!   - - - - - - - - - - - -  per attempt  - - - - - - - - - - - - - - - - - -
//!   7  attempt metrics       first attempts apart from repeated ones            client
//!   8  circuit breaker       of the target                                      circuit_breaker
//!   9  attempt timeout       tells a gRPC server too: grpc-timeout              deadline
//!  10  credentials           a fresh token for the target (gRPC)                auth
//!  11  balancer              the least loaded of several endpoints, each behind
//!                            a breaker of its own (gRPC)                        client
//!            |
//!        connection          made when it is needed, with a pause after a failure
//! ```
//!
//! - **Retry is outside the breaker.** Each attempt is a verdict of its own; with the breaker outside, a call of three failures counts
//!   once, a probe of the half-open breaker is sent three times, and retries go on against a target that is known to be down.
//! - **The breaker is outside the attempt's timeout.** Otherwise the call is dropped from outside when time is up, and a target that hangs
//!   never counts as one that fails.
//! - **The total deadline is outside retry.** Inside, a call may take the limit times the number of attempts.
//! - **The bulkhead counts calls, not attempts.** A call that waits to try again still holds its memory and its caller.
//! - **Credentials are inside retry**, so that a token which ran out meanwhile is a new one.
//!
//! Over HTTP the layers are the same, told the protocol where it makes a difference: there the head of an answer has its status, not its
//! end; a method is idempotent by its name (RFC 9110), not by a contract; a server says `Retry-After`, not a pushback; and nothing is told
//! to it but `traceparent`. At the bottom is reqwest, bound to one origin, without redirects, and sending nothing twice that may have arrived.
//!
//! # The modules
//!
//! Layers of a server: [`request_context`], [`trace`], [`metrics`], [`respond`], [`deadline`], [`load_shed`], [`rate_limit`], [`auth`],
//! [`streams`], [`catch_panic`]. Layers of a client: [`bulkhead`], [`retry`], [`circuit_breaker`], and of the above [`trace`], [`metrics`],
//! [`respond`], [`deadline`] and [`auth`]. Both assembled: [`server`], [`client`].
//!
//! Around the calls of a store: [`db`].
//!
//! What they speak of: [`rejection`] and its table of reasons, [`method_table`], [`context`] of the request at hand, [`body`] that tells how
//! it ended, [`grpc_status`] where it really is, [`clock`] and [`jitter`] that tests can set.
//!
//! What a program needs besides: [`process`] from the command line to the last flush, [`config`], [`telemetry`], [`health`] and the
//! [`admin`] port, [`discovery`] of upstreams and the registration of the service itself, [`task`] that keeps span and context, [`cursor`] and [`parameter`] that every API reads alike.

pub mod adaptive_limit;
pub mod admin;
pub mod auth;
pub mod body;
pub mod bulkhead;
pub mod catch_panic;
pub mod circuit_breaker;
pub mod client;
pub mod clock;
pub mod config;
pub mod context;
mod counter;
pub mod cursor;
pub mod deadline;
pub mod discovery;
pub mod fault;
pub mod filter;
pub mod grpc_status;
pub mod health;
#[cfg(test)]
#[path = "../tests/support/in_memory_exporter.rs"]
mod in_memory_exporter;
pub mod jitter;
pub mod load_shed;
pub mod method_table;
pub mod metrics;
pub mod parse;
pub mod priority;
pub mod process;
pub mod rate_limit;
pub mod rejection;
pub mod request_context;
pub mod respond;
mod response_outcome;
pub mod retry;
pub mod server;
pub mod store_instrumentation;
pub mod streams;
mod sync;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod trace;
