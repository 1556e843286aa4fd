//! A server over the fake ports.

use std::ops::Deref;
use std::sync::Arc;

use weir_control::testing::TestControl;
use weir_core::settings::Settings;

use crate::server::Server;
use crate::signed_links::SigningKey;
use crate::state::AppState;

/// A host with fake ports in memory and the state of its server. Only its files are on disk, in a temporary folder.
pub(crate) struct TestHost {
    pub(crate) app: AppState,
    test_control: TestControl,
}

impl Deref for TestHost {
    type Target = TestControl;

    fn deref(&self) -> &TestControl {
        &self.test_control
    }
}

impl TestHost {
    /// Creates a host with default settings.
    pub(crate) fn new() -> Self {
        Self::with_settings(Settings::default())
    }

    pub(crate) fn with_settings(settings: Settings) -> Self {
        Self::with_server(settings).1
    }

    /// Creates a host and its server, which does not listen yet.
    pub(crate) fn with_server(settings: Settings) -> (Server, Self) {
        Self::build(TestControl::with_settings(settings))
    }

    /// Creates the next process of the host, with the same stored data and settings.
    pub(crate) fn restart(&self) -> Self {
        Self::build(self.test_control.restart()).1
    }

    fn build(test_control: TestControl) -> (Server, Self) {
        let signing_key = SigningKey::from_bytes([7; SigningKey::BYTES]);
        let server = Server::new(Arc::clone(&test_control.control), signing_key);
        let host = Self {
            app: server.app_state(),
            test_control,
        };
        (server, host)
    }
}

/// Returns the shared state of a new host with fake ports.
pub(crate) fn test_app() -> AppState {
    TestHost::new().app
}
