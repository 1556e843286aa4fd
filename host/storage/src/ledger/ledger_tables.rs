//! The tables of the ledger as a migration copies them. They are read from the schemas of both databases, so that none can be forgotten.

use std::collections::{BTreeMap, BTreeSet};

use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_values::params;

/// Tables that are not copied: they have rows of running nodes only, and no node runs during a migration.
const TABLES_OF_RUNNING_NODES: [&str; 4] = ["node_duties", "nodes", "provider_call_waits", "provider_calls"];

/// Tables that only PostgreSQL has: the steps of its schema, and the mark of an unfinished migration.
const TABLES_OF_POSTGRES: [&str; 2] = ["schema_steps", UNFINISHED_MIGRATION_TABLE];
/// The table that exists while the database is the unfinished target of a migration.
pub(super) const UNFINISHED_MIGRATION_TABLE: &str = "unfinished_migration";

/// A table that both databases have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerTable {
    pub(super) name: String,
    /// All columns, sorted by name.
    pub(super) columns: Vec<String>,
    /// The columns of the primary key in PostgreSQL, in order. They are unique in SQLite too.
    pub(super) key: Vec<String>,
    /// The column whose values the database generates. PostgreSQL takes others only if the statement says so.
    pub(super) generated_column: Option<String>,
}

/// The tables of one database.
#[derive(Debug)]
pub(super) struct DatabaseTables {
    tables: BTreeMap<String, DatabaseTable>,
    is_postgres: bool,
}

#[derive(Debug, Default)]
struct DatabaseTable {
    columns: BTreeSet<String>,
    key: Vec<String>,
    generated_column: Option<String>,
}

impl DatabaseTables {
    /// Returns the names of the tables that a migration copies.
    pub(super) fn names_to_copy(&self) -> Vec<String> {
        let is_copied = |name: &&String| {
            let name = name.as_str();
            !TABLES_OF_RUNNING_NODES.contains(&name) && !TABLES_OF_POSTGRES.contains(&name)
        };
        self.tables.keys().filter(is_copied).cloned().collect()
    }
}

/// Reads the tables of a database.
pub(super) fn read_database_tables(c: &SqlConnection<'_>) -> SqlResult<DatabaseTables> {
    let mut tables = BTreeMap::new();
    let list = match c {
        SqlConnection::Sqlite(_) => {
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        }
        SqlConnection::Postgres(_) => {
            "SELECT table_name::text FROM information_schema.tables
             WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
        }
    };
    for name in c.query_rows(list, params![], |row| row.get::<String>(0))? {
        let table = match c {
            SqlConnection::Sqlite(_) => read_sqlite_table(c, &name)?,
            SqlConnection::Postgres(_) => read_postgres_table(c, &name)?,
        };
        tables.insert(name, table);
    }
    Ok(DatabaseTables {
        tables,
        is_postgres: matches!(c, SqlConnection::Postgres(_)),
    })
}

fn read_sqlite_table(c: &SqlConnection<'_>, name: &str) -> SqlResult<DatabaseTable> {
    let columns = c.query_rows("SELECT name FROM pragma_table_info(?1)", params![name], |row| {
        row.get(0)
    })?;
    Ok(DatabaseTable {
        columns: columns.into_iter().collect(),
        ..DatabaseTable::default()
    })
}

fn read_postgres_table(c: &SqlConnection<'_>, name: &str) -> SqlResult<DatabaseTable> {
    let columns: Vec<(String, bool)> = c.query_rows(
        "SELECT column_name::text, is_identity::text = 'YES' FROM information_schema.columns
         WHERE table_schema = current_schema() AND table_name::text = ?1",
        params![name],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let key = c.query_rows(
        "SELECT a.attname::text FROM pg_index i
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
         WHERE i.indrelid = to_regclass(?1) AND i.indisprimary
         ORDER BY array_position(i.indkey::int2[], a.attnum)",
        params![name],
        |row| row.get(0),
    )?;
    let generated = columns.iter().find(|(_, is_generated)| *is_generated);
    Ok(DatabaseTable {
        generated_column: generated.map(|(column, _)| column.clone()),
        columns: columns.into_iter().map(|(column, _)| column).collect(),
        key,
    })
}

/// Returns the tables to copy from one database to the other, with those last that triggers fill from others. The error names a table
/// that the databases do not have alike.
pub(super) fn find_common_tables(
    one: &DatabaseTables,
    other: &DatabaseTables,
) -> Result<Vec<LedgerTable>, String> {
    let (sqlite, postgres) = match (one.is_postgres, other.is_postgres) {
        (false, true) => (one, other),
        (true, false) => (other, one),
        _ => return Err("both databases are of the same kind".into()),
    };
    let mut tables = Vec::new();
    for (name, table) in &sqlite.tables {
        if TABLES_OF_RUNNING_NODES.contains(&name.as_str()) {
            continue;
        }
        let other = postgres.tables.get(name);
        let other = other.ok_or_else(|| format!("table {name} is not on the server"))?;
        let mut columns = table.columns.clone();
        // SQLite has a hidden `rowid`.
        columns.extend(other.generated_column.clone());
        if columns != other.columns || other.key.is_empty() {
            return Err(format!("table {name} has other columns on the server"));
        }
        tables.push(LedgerTable {
            name: name.clone(),
            columns: columns.into_iter().collect(),
            key: other.key.clone(),
            generated_column: other.generated_column.clone(),
        });
    }
    tables.sort_by_key(|table| table.name == "storage_usage");
    Ok(tables)
}

impl LedgerTable {
    fn column_list(&self) -> String {
        self.columns.join(", ")
    }

    /// Returns the statement that reads rows in the order of the key, and the number of its parameters without the limit.
    pub(super) fn read_sql(&self, is_after_a_key: bool) -> String {
        let (columns, key, limit) = (self.column_list(), self.key.join(", "), self.key.len() + 1);
        let after = match is_after_a_key {
            true => format!("WHERE ({key}) > ({}) ", numbered_parameters(self.key.len())),
            false => String::new(),
        };
        let limit = if is_after_a_key { limit } else { 1 };
        format!(
            "SELECT {columns} FROM {} {after}ORDER BY {key} LIMIT ?{limit}",
            self.name
        )
    }

    /// Returns the statement that inserts a row unless it exists.
    pub(super) fn insert_sql(&self, c: &SqlConnection<'_>) -> String {
        let overriding = match (c, &self.generated_column) {
            (SqlConnection::Postgres(_), Some(_)) => "OVERRIDING SYSTEM VALUE ",
            _ => "",
        };
        format!(
            "INSERT INTO {} ({}) {overriding}VALUES ({}) ON CONFLICT DO NOTHING",
            self.name,
            self.column_list(),
            numbered_parameters(self.columns.len())
        )
    }

    /// Returns the statement that reads the key of the last row.
    pub(super) fn last_key_sql(&self) -> String {
        let descending: Vec<String> = self.key.iter().map(|column| format!("{column} DESC")).collect();
        format!(
            "SELECT {} FROM {} ORDER BY {} LIMIT 1",
            self.key.join(", "),
            self.name,
            descending.join(", ")
        )
    }

    /// Returns the positions of the key's columns among all columns.
    pub(super) fn key_positions(&self) -> Vec<usize> {
        let position = |column| self.columns.iter().position(|other| other == column);
        self.key.iter().filter_map(position).collect()
    }
}

fn numbered_parameters(count: usize) -> String {
    let parameters: Vec<String> = (1..=count).map(|number| format!("?{number}")).collect();
    parameters.join(", ")
}
