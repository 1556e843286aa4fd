//! The arguments of commands, and the parsers of their values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use weir_core::collection_and_labels::{CollectionAndLabelsRequest, CollectionOrLabelError, validate_labels};
use weir_core::id::{DocumentId, TenantId, is_valid_name};
use weir_core::node::NodeRole;
use weir_core::settings::Settings;
use weir_core::tenancy::KeyScope;

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Folder with documents, vectors and the ledger; not used with a server [default: $XDG_DATA_HOME/weir/data]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "WEIR_DATA",
        hide_env_values = true
    )]
    pub(crate) data: Option<PathBuf>,
    /// URL of the server to use instead of the data folder [default: the variable WEIR_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// File with the API key for the server [default: the variable WEIR_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Settings file [default: weir.toml, if the file exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override a setting, such as raster.worker_processes=4
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = parse_assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more (-v: main steps, -vv: every stage and batch, -vvv: also libraries)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Arguments of `weir run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir run report.pdf --out results
  weir run scans/ --ocr always --dpi 200
  weir run forms/ --vision always --out results
  weir run book.pdf --pages 3-20 --json
  weir run minutes/ --collection minutes --label team=north --label year=2024

With --json, each line is an event with `seq`, `job`, `document` and `type`. The last event of a document is
`document-done` (`pages`, `searchable`, `skipped`, `failed`), `document-failed` (`error`) or `document-cancelled`.
Ctrl-C starts no further pages and keeps the finished ones; the next run continues from there.")]
pub(crate) struct RunArgs {
    /// PDF files, or folders with PDF files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write document.md, page images and text lines with their boxes to this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Ingest only these pages, such as 3-20, 7 or 12-
    #[arg(long, value_name = "PAGES", value_parser = parse_page_range)]
    pub(crate) pages: Option<RangeInclusive<u32>>,
    /// Resolution of the page images in dots per inch [default: from the pipeline, else 150]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(36..=600))]
    pub(crate) dpi: Option<u32>,
    /// When to recognize text in page images with OCR [default: from the pipeline, else auto]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "always", "never"]))]
    pub(crate) ocr: Option<String>,
    /// When to read pages with a vision model, an [[llm.provider]] with supports_images = true: auto selects the pages that
    /// --ocr auto selects [default: from the pipeline, else never]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "always", "never"]))]
    pub(crate) vision: Option<String>,
    /// Manifest of a pipeline [default: the default components]
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline: Option<PathBuf>,
    /// Password of an encrypted PDF
    #[arg(long, env = "WEIR_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// Process pages again that are already done
    #[arg(long)]
    pub(crate) force: bool,
    /// Summarize each document and its sections
    #[arg(long)]
    pub(crate) summarize: bool,
    /// Label of the documents, such as team=north, in addition to the labels of the routing component; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Collection of the documents [default: from the routing component]
    #[arg(long, value_name = "NAME", value_parser = parse_collection)]
    pub(crate) collection: Option<String>,
}

impl RunArgs {
    /// Returns the requested collection and labels of the documents.
    pub(crate) fn collection_and_labels_request(&self) -> CollectionAndLabelsRequest {
        // If a label name is repeated, the last value is used.
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        CollectionAndLabelsRequest {
            collection: self.collection.clone(),
            labels: (!labels.is_empty()).then(|| labels.into_iter().collect()),
        }
    }
}

/// Arguments of `weir search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir search \"the highest water level\" --top-k 3
  weir search \"deadline\" --document 3fb2 --json
  weir search \"deadline\" --label team=north --collection reports

On a server, the API key needs the scope read.
--json prints {\"hits\": [{\"document\", \"name\", \"page\", \"score\", \"similarity\", \"weak\", \"text\", \"matches\", \"box\",
\"labels\"}]}. `matches` are byte ranges of `text` that match words of the query. `box` is in fractions of the page's
width and height, from its upper left corner. `weak` marks passages with a low similarity and no word of the query.")]
pub(crate) struct SearchArgs {
    /// The query
    pub(crate) text: String,
    /// Maximum number of passages
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) top_k: u32,
    /// Search only this document: its id, or the first digits of the id
    #[arg(long, value_name = "ID", value_parser = parse_document_id_prefix)]
    pub(crate) document: Option<String>,
    /// Search only documents with this label, such as team=north; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Search only this collection
    #[arg(long, value_name = "NAME", value_parser = parse_collection)]
    pub(crate) collection: Option<String>,
}

/// Arguments of `weir serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir serve                                            on 127.0.0.1:7070
  weir serve --role worker                              runs jobs of a cluster, and serves only probes and metrics
  weir serve --listen 0.0.0.0:443 --set server.tls_certificate_file=chain.pem --set server.tls_key_file=key.pem

The first start creates the tenant `default` and an API key with all scopes, and prints the key once.
After SIGTERM, the server starts no further jobs, waits for running jobs up to a grace period and exits with 0.
Unfinished jobs continue at the next start.")]
pub(crate) struct ServeArgs {
    /// Address and port to listen on [default: the setting server.listen_address, 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// What this node does: serve the API (api), run jobs (worker), or both [default: the setting cluster.role, both]
    #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(NodeRole::ALL.map(NodeRole::name)).try_map(|role| role.parse::<NodeRole>()))]
    pub(crate) role: Option<NodeRole>,
}

impl ServeArgs {
    /// Applies the options to the settings.
    pub(crate) fn override_settings(&self, settings: &mut Settings) {
        if let Some(address) = self.listen {
            settings.server_listen_address = address;
        }
        if let Some(role) = self.role {
            settings.cluster_role = role;
        }
    }
}

/// The subcommands of `weir migrate`.
#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Copy the data folder to the servers of the settings
    ToServers(MigrateArgs),
    /// Copy the content of the servers to the data folder
    ToFolder(MigrateArgs),
}

/// Arguments of both directions of `weir migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Only count what would be copied
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The subcommands of `weir retention`.
#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show how long the records of each tenant are kept, and how many have expired
    Show,
    /// Remove expired records now; stop the server first
    Run {
        /// Only count them; a server may run
        #[arg(long)]
        dry_run: bool,
    },
}

/// The subcommands of `weir tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Create a tenant and an API key with the scopes ingest and read
    Create {
        /// Name of the tenant: a-z, 0-9, '-' and '_'
        tenant: TenantId,
        /// Share of a busy host, relative to other tenants
        #[arg(long, default_value_t = 1.0, value_name = "N", value_parser = parse_tenant_weight)]
        weight: f64,
        /// Quota that overrides the host's, such as pages_per_day=1000; 0 is no limit; repeatable
        #[arg(long = "quota", value_name = "NAME=VALUE", value_parser = parse_number_assignment)]
        quotas: Vec<(String, u64)>,
        /// Retention period in days that overrides the host's, such as ended_jobs_days=7; 0 is no limit; repeatable
        #[arg(long, value_name = "NAME=DAYS", value_parser = parse_number_assignment)]
        retention: Vec<(String, u64)>,
    },
    /// List the tenants
    List,
    /// Change a tenant's weight, quotas and retention periods
    Set {
        /// Name of the tenant
        tenant: TenantId,
        /// Share of a busy host, relative to other tenants
        #[arg(long, value_name = "N", value_parser = parse_tenant_weight)]
        weight: Option<f64>,
        /// Quota that overrides the host's, such as pages_per_day=1000; 0 is no limit; repeatable
        #[arg(long = "quota", value_name = "NAME=VALUE", value_parser = parse_number_assignment)]
        quotas: Vec<(String, u64)>,
        /// Retention period in days that overrides the host's, such as ended_jobs_days=7; 0 is no limit; repeatable
        #[arg(long, value_name = "NAME=DAYS", value_parser = parse_number_assignment)]
        retention: Vec<(String, u64)>,
    },
    /// Replace all API keys of a tenant with one new key that has the scopes of all of them
    RotateKeys {
        /// Name of the tenant
        tenant: TenantId,
    },
    /// Reject all API keys of a tenant; its data stays
    Suspend {
        /// Name of the tenant
        tenant: TenantId,
    },
    /// Accept the API keys of a suspended tenant again
    Resume {
        /// Name of the tenant
        tenant: TenantId,
    },
    /// Delete a tenant with its documents, jobs and keys; stop the server first
    Delete {
        /// Name of the tenant
        tenant: TenantId,
    },
}

/// The subcommands of `weir key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Create an API key and print it once
    Create {
        /// Tenant of the key
        tenant: TenantId,
        /// Permission of the key: ingest, read, components or admin; repeatable
        #[arg(long = "scope", value_name = "SCOPE", default_values = ["ingest", "read"])]
        scopes: Vec<KeyScope>,
        /// Display name of the key
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// Number of days until the key expires [default: never]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: Option<u32>,
    },
    /// List the API keys of a tenant
    List {
        /// Name of the tenant
        tenant: TenantId,
    },
    /// Revoke an API key
    Revoke {
        /// Id of the key: the first 12 digits after `weir_`
        key: String,
    },
}

fn parse_tenant_weight(text: &str) -> Result<f64, String> {
    let weight = text.parse::<f64>().ok().filter(|w| (0.01..=100.0).contains(w));
    weight.ok_or_else(|| "the weight must be a number from 0.01 to 100".into())
}

fn parse_number_assignment(text: &str) -> Result<(String, u64), String> {
    let (name, value) = parse_assignment(text).map_err(|_| "the format is name=value")?;
    let value = value
        .parse()
        .map_err(|_| format!("'{value}' is not a whole number"))?;
    Ok((name, value))
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("the format is section.name=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("the format is KEY=VALUE")?;
    let label = (name.to_owned(), value.to_owned());
    validate_labels(std::slice::from_ref(&label)).map_err(|error| error.to_string())?;
    Ok(label)
}

fn parse_collection(text: &str) -> Result<String, String> {
    if is_valid_name(text) {
        Ok(text.to_owned())
    } else {
        Err(CollectionOrLabelError::InvalidCollection.to_string())
    }
}

fn parse_page_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let wrong = || format!("'{text}' is not a range of pages: use a format like 7, 3-20 or 12-");
    let number = |s: &str| s.trim().parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong);
    let range = match text.split_once('-') {
        None => number(text)?..=number(text)?,
        Some((from, "")) => number(from)?..=u32::MAX,
        Some((from, to)) => number(from)?..=number(to)?,
    };
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

fn parse_document_id_prefix(text: &str) -> Result<String, String> {
    let digits = text.len() >= 4 && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if text.parse::<DocumentId>().is_ok() || digits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(
            "the document is a document id, or at least its first 4 digits; `weir documents` lists the ids"
                .into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_ranges_are_parsed() {
        assert_eq!(parse_page_range("7"), Ok(7..=7));
        assert_eq!(parse_page_range("3-20"), Ok(3..=20));
        assert_eq!(parse_page_range("12-"), Ok(12..=u32::MAX));
        for wrong in ["", "0", "-3", "5-4", "a", "1-b", "1-2-3"] {
            assert!(parse_page_range(wrong).is_err(), "{wrong}");
        }
    }
}
