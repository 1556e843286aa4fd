//! The command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use weir_core::filing::{Filing, FilingError, check_labels};
use weir_core::id::{DocumentId, TenantId, is_name};
use weir_core::tenancy::Scope;

use crate::component::{ComponentCommand, Dev};
use crate::pipelines::PipelineCommand;
use crate::replay::Replay;
use crate::said::Log;

/// What `weir --help` ends with.
const AFTER: &str = "\
Examples:
  weir run report.pdf                         ingest a document
  weir run papers/ --out results              a folder; keep Markdown, page images and boxes
  weir search \"who signed the contract?\"      find passages in everything ingested
  weir serve                                  take documents over HTTP, for many tenants
  weir doctor                                 what is installed, what is missing

With --server URL or WEIR_SERVER, commands work on that server, with the key of WEIR_KEY or
--key-file; otherwise they work on the data folder of this machine.
  on either            search, documents, log, replay
  on a server only     pipeline, component push, component list, component remove
  in the folder only   run, tenant, key

Settings: weir.toml in this folder or --config FILE < WEIR_SECTION_NAME < --set section.name=value.
`weir settings` lists them.

Exit codes: 0 all went well, 1 a document (or the command) failed, 2 wrong use, 130 interrupted.";

/// A host for document-ingestion pipelines.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about = "A host for document-ingestion pipelines", after_help = AFTER)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags every command takes.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// Folder for documents, vectors and the ledger, where no server is named [default: $XDG_DATA_HOME/weir/data]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "WEIR_DATA",
        hide_env_values = true
    )]
    pub(crate) data: Option<PathBuf>,
    /// Work on this server instead of the data folder [default: the variable WEIR_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// File with the key for the server [default: the variable WEIR_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Settings file [default: weir.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set a setting, such as raster.workers=4
    #[arg(long = "set", global = true, value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more (-v: what happens, -vv: every stage and batch)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ingest documents and make them searchable
    Run(Run),
    /// Find passages in what has been ingested here or on a server
    Search(Search),
    /// List what has been ingested here or on a server
    #[command(after_help = "On a server the key needs the scope read.")]
    Documents,
    /// Serve many tenants over HTTP
    Serve(Serve),
    /// Make tenants and change them, in the data folder
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Make and revoke tenants' keys, in the data folder
    #[command(subcommand)]
    Key(KeyCommand),
    /// Push pipelines to a server and roll them out
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Read what a job's components said, and how they failed
    Log(Log),
    /// Have a job's decisions again, by its components or others
    Replay(Replay),
    /// Write components: decisions in Rust, JavaScript or Python
    #[command(subcommand)]
    Component(ComponentCommand),
    /// Build a component, test it and run a document through it after each change
    Dev(Dev),
    /// Say what is installed, what is missing and how to get it
    Doctor,
    /// List the settings, their values and what they do
    Settings,
}

/// `weir run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir run report.pdf --out results
  weir run scans/ --ocr always --dpi 200
  weir run forms/ --vision always --out results
  weir run book.pdf --pages 3-20 --json
  weir run minutes/ --collection minutes --label team=north --label year=2024

Each line that --json prints is an event with `seq`, `job`, `document` and `type`. A document ends with
`document-done` (`pages`, `searchable`, `skipped`, `failed`) or `document-failed` (`error`).
Ctrl-C stops taking pages and keeps what is done; the next run goes on from there.")]
pub(crate) struct Run {
    /// PDF files, or folders of them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Write document.md, page images and lines with boxes to this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Only these pages, such as 3-20, 7 or 12-
    #[arg(long, value_name = "PAGES", value_parser = pages)]
    pub(crate) pages: Option<RangeInclusive<u32>>,
    /// Resolution of the page images [default: the pipeline's, 150]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(36..=600))]
    pub(crate) dpi: Option<u32>,
    /// When to recognize text in page images [default: the pipeline's, auto]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "always", "never"]))]
    pub(crate) ocr: Option<String>,
    /// When to have pages read by a vision model, an [[llm.provider]] with vision = true: auto is where --ocr auto would
    /// recognize text [default: the pipeline's, never]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "always", "never"]))]
    pub(crate) vision: Option<String>,
    /// A pipeline's manifest; without it the default components decide
    #[arg(long, value_name = "FILE")]
    pub(crate) pipeline: Option<PathBuf>,
    /// Password of an encrypted PDF
    #[arg(long, env = "WEIR_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// Do pages again that are already done
    #[arg(long)]
    pub(crate) force: bool,
    /// Summarize each document, by section and as a whole
    #[arg(long)]
    pub(crate) summarize: bool,
    /// A label of the documents, such as team=north, beside those of the pipeline's routing; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Collection to file the documents under [default: the pipeline's]
    #[arg(long, value_name = "NAME", value_parser = collection)]
    pub(crate) collection: Option<String>,
}

impl Run {
    /// Collection and labels of the documents.
    pub(crate) fn filing(&self) -> Filing {
        // Of two labels of one name, the last counts.
        let labels: BTreeMap<_, _> = self.labels.iter().cloned().collect();
        Filing {
            collection: self.collection.clone(),
            labels: (!labels.is_empty()).then(|| labels.into_iter().collect()),
        }
    }
}

/// `weir search`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir search \"the highest water level\" --top-k 3
  weir search \"deadline\" --document 3fb2 --json
  weir search \"deadline\" --label team=north --collection reports

On a server the key needs the scope read.
--json prints {\"hits\": [{\"document\", \"name\", \"page\", \"score\", \"similarity\", \"weak\", \"text\", \"matches\", \"box\",
\"labels\"}]}; matches are bytes of the text where words of the query stand, a box is given in shares of the
page's width and height from its upper left corner.")]
pub(crate) struct Search {
    /// What to look for
    pub(crate) text: String,
    /// How many passages
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) top_k: u32,
    /// Only in this document: its id, or the beginning of it
    #[arg(long, value_name = "ID", value_parser = document_prefix)]
    pub(crate) document: Option<String>,
    /// Only where this label holds, such as team=north; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only in this collection
    #[arg(long, value_name = "NAME", value_parser = collection)]
    pub(crate) collection: Option<String>,
}

/// `weir serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir serve                                            on 127.0.0.1:7070
  weir serve --listen 0.0.0.0:443 --set server.tls_certificate=chain.pem --set server.tls_key=key.pem

The first start makes the tenant `default` with a key that may do everything, and prints it once.
SIGTERM stops taking jobs, gives running ones a grace time and exits with 0; they go on at the next start.")]
pub(crate) struct Serve {
    /// Address and port [default: the setting server.listen, 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `weir tenant …`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant and a key with the scopes ingest and read
    Create {
        /// Its name: a-z, 0-9, '-' and '_'
        tenant: TenantId,
        /// Its share of a busy host, relative to the others
        #[arg(long, default_value_t = 1.0, value_name = "N", value_parser = weight)]
        weight: f64,
        /// A quota of its own, such as pages_per_day=1000; 0 is no limit
        #[arg(long = "quota", value_name = "NAME=VALUE", value_parser = quota)]
        quotas: Vec<(String, u64)>,
    },
    /// List the tenants
    List,
    /// Change a tenant's weight and quotas
    Set {
        /// Its name
        tenant: TenantId,
        /// Its share of a busy host, relative to the others
        #[arg(long, value_name = "N", value_parser = weight)]
        weight: Option<f64>,
        /// A quota of its own, such as pages_per_day=1000; 0 is no limit
        #[arg(long = "quota", value_name = "NAME=VALUE", value_parser = quota)]
        quotas: Vec<(String, u64)>,
    },
    /// Make a new key with the scopes of all its keys, and revoke those
    Rotate {
        /// Its name
        tenant: TenantId,
    },
    /// Refuse its keys; nothing of it is lost
    Suspend {
        /// Its name
        tenant: TenantId,
    },
    /// Take its keys again
    Resume {
        /// Its name
        tenant: TenantId,
    },
    /// Delete it with its documents, jobs and keys; no server may be running
    Delete {
        /// Its name
        tenant: TenantId,
    },
}

/// `weir key …`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once
    Create {
        /// The tenant it speaks for
        tenant: TenantId,
        /// What it may do: ingest, read, components, admin
        #[arg(long = "scope", value_name = "SCOPE", default_values = ["ingest", "read"])]
        scopes: Vec<Scope>,
        /// What it is for
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// Days until it expires
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=36500))]
        days: Option<u32>,
    },
    /// List a tenant's keys
    List {
        /// The tenant
        tenant: TenantId,
    },
    /// Refuse a key from now on
    Revoke {
        /// The 12 digits behind `weir_` that it begins with
        key: String,
    },
}

fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse::<f64>().ok().filter(|w| (0.01..=100.0).contains(w));
    weight.ok_or_else(|| "give a number from 0.01 to 100".into())
}

fn quota(text: &str) -> Result<(String, u64), String> {
    let (name, value) = assignment(text).map_err(|_| "write it as name=value")?;
    let value = value
        .parse()
        .map_err(|_| format!("'{value}' is not a whole number"))?;
    Ok((name, value))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as section.name=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    let label = (name.to_owned(), value.to_owned());
    check_labels(std::slice::from_ref(&label)).map_err(|error| error.to_string())?;
    Ok(label)
}

fn collection(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(FilingError::Collection.to_string())
    }
}

fn pages(text: &str) -> Result<RangeInclusive<u32>, String> {
    let wrong = || format!("'{text}' is no range of pages: write 7, 3-20 or 12-");
    let number = |s: &str| s.trim().parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong);
    let range = match text.split_once('-') {
        None => number(text)?..=number(text)?,
        Some((from, "")) => number(from)?..=u32::MAX,
        Some((from, to)) => number(from)?..=number(to)?,
    };
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

fn document_prefix(text: &str) -> Result<String, String> {
    let digits = text.len() >= 4 && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if text.parse::<DocumentId>().is_ok() || digits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("give the document's id as `weir documents` lists it, or at least its first 4 digits".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn page_ranges() {
        assert_eq!(pages("7"), Ok(7..=7));
        assert_eq!(pages("3-20"), Ok(3..=20));
        assert_eq!(pages("12-"), Ok(12..=u32::MAX));
        for wrong in ["", "0", "-3", "5-4", "a", "1-b", "1-2-3"] {
            assert!(pages(wrong).is_err(), "{wrong}");
        }
    }
}
