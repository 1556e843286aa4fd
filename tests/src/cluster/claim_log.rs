//! The claims of jobs, as the database has seen them.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_test_services::PostgresServer;

/// One claim of a job.
#[derive(Debug, Clone)]
pub struct LoggedClaim {
    pub job: String,
    pub epoch: u64,
    /// The node's process, such as `node-1/0193…`.
    pub owner: String,
    /// Time since 1970 by the clock of the database.
    pub claimed_at: Duration,
}

/// Records every claim of a job with the time of the database, by a trigger.
pub struct ClaimLog;

impl ClaimLog {
    /// Adds the trigger to the ledger.
    pub fn install(postgres: &PostgresServer) -> Self {
        postgres.query(
            "CREATE SCHEMA test;
             CREATE TABLE test.claims (job text, epoch bigint, owner text, claimed_at timestamptz DEFAULT clock_timestamp());
             CREATE FUNCTION test.record_claim() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO test.claims (job, epoch, owner) VALUES (NEW.id, NEW.epoch, NEW.owner); RETURN NEW; END $$;
             CREATE TRIGGER record_claim AFTER UPDATE ON jobs FOR EACH ROW WHEN (NEW.epoch <> OLD.epoch)
                 EXECUTE FUNCTION test.record_claim()",
        );
        Self
    }

    /// Returns all claims of each job, in their order.
    pub fn read(&self, postgres: &PostgresServer) -> BTreeMap<String, Vec<LoggedClaim>> {
        let rows = postgres.query(
            "SELECT job, epoch, owner, extract(epoch FROM claimed_at) FROM test.claims ORDER BY job, epoch",
        );
        let mut claims = BTreeMap::<String, Vec<LoggedClaim>>::new();
        for row in rows.lines() {
            let columns: Vec<&str> = row.split('|').collect();
            let claim = LoggedClaim {
                job: columns[0].to_owned(),
                epoch: columns[1].parse().unwrap(),
                owner: columns[2].to_owned(),
                claimed_at: Duration::from_secs_f64(columns[3].parse().unwrap()),
            };
            claims.entry(claim.job.clone()).or_default().push(claim);
        }
        claims
    }
}

/// Returns the time since 1970 by the clock of the database.
pub fn database_time(postgres: &PostgresServer) -> Duration {
    let seconds = postgres.query("SELECT extract(epoch FROM clock_timestamp())");
    Duration::from_secs_f64(seconds.parse().unwrap())
}
