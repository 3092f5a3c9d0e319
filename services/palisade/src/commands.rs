//! Subcommands. Tokens and keys: `palisade token`, `palisade keygen`, `palisade jwks`. Orders
//! store: `palisade migrate` (schema), `palisade redrive` (dead-lettered events). Both stores:
//! `palisade erase`. A running all-in-one: `palisade demo`.

use std::{io::Write, ops::RangeInclusive, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Arg, ArgMatches, Command, parser::ValueSource, value_parser};
use palisade_middleware::{
    auth::{UserToken, keys::SigningKey, mint_user_token},
    clock::{Clock, SystemClock},
};
use palisade_orders::config::Store;

use crate::{
    all_in_one,
    data_dir::{self, DEV_ISSUER},
    demo, erase, subcommand,
};

/// Returns the subcommands.
pub(crate) fn commands() -> [Command; 7] {
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("TEXT").help(help);
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help)
    };
    let number = |name: &'static str, help: &'static str, range: RangeInclusive<u64>| {
        Arg::new(name).long(name).value_name("NUMBER").value_parser(value_parser!(u64).range(range)).help(help)
    };
    let with_store_arguments = |command: Command| {
        command
            .arg(text("store-url", "postgres://… or sqlite://path [env: PALISADE_STORE__URL]"))
            .arg(path("store-url-file", "File with the URL [env: PALISADE_STORE__URL_FILE]").conflicts_with("store-url"))
    };
    [
        subcommand("token", "Print a signed bearer token")
            .arg(text("sub", "Subject (user id) of the token").required(true))
            .arg(text("scope", "Space-separated scopes").default_value(""))
            .arg(
                text("audience", "Audience of the token: palisade (the gateway), products or orders")
                    .default_value(palisade_gateway::AUDIENCE),
            )
            .arg(text("issuer", "Issuer of the token").default_value(DEV_ISSUER))
            .arg(
                Arg::new("expires-in")
                    .long("expires-in")
                    .value_name("SECONDS")
                    .value_parser(value_parser!(u64))
                    .default_value("3600")
                    .help("Lifetime of the token"),
            )
            .arg(
                path("key-file", "PEM file with the Ed25519 private key to sign with [default: the development key]")
                    .conflicts_with("data-dir"),
            )
            .arg(path("data-dir", "Directory of the development key [default: palisade-data] [env: PALISADE_DATA_DIR]")),
        with_store_arguments(subcommand("migrate", "Migrate the schema of an orders store, for a job that runs before the service starts")),
        with_store_arguments(subcommand("redrive", "Requeue all dead-lettered events of an orders store and print their number")),
        subcommand("demo", "Send a small load to a running all-in-one, with a fault every minute, to watch in its console")
            .arg(text("url", "Base URL of the gateway").default_value("http://127.0.0.1:3000"))
            .arg(text("admin-url", "Base URL of the admin port of the gateway").default_value("http://127.0.0.1:9464"))
            .arg(number("rate", "Requests per second, at most 100", 1..=100).default_value("10"))
            .arg(number("seconds", "Duration, at most one hour", 1..=3_600).default_value("600"))
            .arg(path("data-dir", "Directory of the development key [default: palisade-data] [env: PALISADE_DATA_DIR]")),
        subcommand("erase", "Erase the data of a subject from the stores and the archive of the configuration")
            .after_help("The settings of the stores stand before the name, in a file or in the environment: palisade --config FILE erase …")
            .arg(text("subject", "Subject whose data is erased, with the prefix of its issuer").required(true)),
        subcommand("keygen", "Generate an Ed25519 private key for a service")
            .arg(path("out", "File to create, readable by its owner only").required(true)),
        subcommand("jwks", "Print the public keys of private keys as a JSON Web Key Set").arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .num_args(1..)
                .required(true)
                .help("PEM files with private keys"),
        ),
    ]
}

/// Runs one of [`commands`]. `before` are the options before its name, of the server: only the data
/// directory of `token` and `demo`, and the configuration of `erase` have an effect.
pub(crate) fn run(name: &str, arguments: &ArgMatches, before: &ArgMatches) -> anyhow::Result<()> {
    let has_key = |id: &str| arguments.try_contains_id(id).unwrap_or_default();
    let uses_data_dir = ["token", "demo"].contains(&name) && !has_key("key-file") && !has_key("data-dir");
    let is_given = |id: &str| before.value_source(id) == Some(ValueSource::CommandLine);
    let is_used = |id: &str| name == "erase" || (uses_data_dir && id == "data_dir");
    let unusable = before.ids().map(clap::Id::as_str).find(|id| is_given(id) && !is_used(id));
    if let Some(id) = unusable {
        bail!("--{} has no effect on {name}", id.replace(['.', '_'], "-"));
    }
    let data_dir = before.get_one::<String>("data_dir");
    match name {
        "token" => token(arguments, data_dir.map(PathBuf::from)),
        "demo" => demo(arguments, data_dir.map(PathBuf::from)),
        "erase" => print(&erase::run(arguments.get_one::<String>("subject").context("--subject is required")?, before)?),
        "keygen" => keygen(arguments),
        "migrate" => with_store(arguments, async |url| palisade_orders::migrate(url).await),
        "redrive" => with_store(arguments, async |url| print(&palisade_orders::redrive(url).await?.to_string())),
        _ => jwks(arguments),
    }
}

fn token(arguments: &ArgMatches, data_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let text = |name: &str| arguments.get_one::<String>(name).cloned().unwrap_or_default();
    let key = match (arguments.get_one::<PathBuf>("key-file"), arguments.get_one::<PathBuf>("data-dir")) {
        (Some(path), _) => data_dir::read_key(path)?,
        (None, Some(path)) => data_dir::development_key(path)?,
        // `palisade --data-dir X token` is `palisade token --data-dir X`.
        (None, None) => data_dir::development_key(&data_dir.unwrap_or_else(data_dir::default))?,
    };
    let token = UserToken {
        subject: text("sub"),
        scope: text("scope"),
        issuer: text("issuer"),
        audience: text("audience"),
        lifetime: Duration::from_secs(arguments.get_one::<u64>("expires-in").copied().unwrap_or(3_600)),
    };
    print(&mint_user_token(&token, &key, SystemClock.now().unix_timestamp())?)
}

fn demo(arguments: &ArgMatches, data_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let text = |name: &str| arguments.get_one::<String>(name).map(|url| url.trim_end_matches('/').to_owned()).unwrap_or_default();
    let number = |name: &str| arguments.get_one::<u64>(name).copied().unwrap_or(1);
    let data_dir = arguments.get_one::<PathBuf>("data-dir").cloned().or(data_dir).unwrap_or_else(data_dir::default);
    let options = demo::Options {
        url: text("url"),
        admin_url: text("admin-url"),
        token: all_in_one::demo_token(&data_dir::development_key(&data_dir)?, &SystemClock)?,
        rate: u32::try_from(number("rate"))?,
        duration: Duration::from_secs(number("seconds")),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(demo::run(&options))
}

fn keygen(arguments: &ArgMatches) -> anyhow::Result<()> {
    let path = arguments.get_one::<PathBuf>("out").context("--out is required")?;
    data_dir::create_key_file(path, &SigningKey::generate_pem()?).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs `work` with the URL of an orders store.
fn with_store(arguments: &ArgMatches, work: impl AsyncFnOnce(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut store = Store {
        url: arguments.get_one::<String>("store-url").cloned().map(Into::into),
        url_file: arguments.get_one::<PathBuf>("store-url-file").cloned(),
        ..Store::default()
    };
    if store.url.is_none() && store.url_file.is_none() {
        store.url = std::env::var("PALISADE_STORE__URL").ok().map(Into::into);
        store.url_file = std::env::var_os("PALISADE_STORE__URL_FILE").map(Into::into);
    }
    let url = store.url().context("--store-url or --store-url-file is required")?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work(url.expose()))
}

fn jwks(arguments: &ArgMatches) -> anyhow::Result<()> {
    let files = arguments.get_many::<PathBuf>("file").into_iter().flatten();
    let keys = files.map(|path| Ok(data_dir::read_key(path)?.public_jwk().clone())).collect::<anyhow::Result<Vec<_>>>()?;
    print(&serde_json::to_string_pretty(&serde_json::json!({ "keys": keys }))?)
}

fn print(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
