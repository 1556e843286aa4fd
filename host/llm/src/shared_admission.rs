//! The admission of calls to a provider whose limits hold for several nodes together.
//!
//! The dispatcher assigns a request only with a [`CallTicket`]. It asks the provider's admission worker for one at a time, and decides who
//! gets it when it arrives: the request that was to be next may be gone by then, or a more urgent one may have come.

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use weir_core::provider_call_limits::{MAX_ADMISSION_AGE, ProviderCallId};

/// A message to the admission worker of a provider. The worker handles them in their order.
pub(crate) enum AdmissionCommand {
    /// Ask the store for a call of this many tokens. The sender becomes part of the ticket.
    Begin {
        tokens: u64,
        commands: mpsc::UnboundedSender<Self>,
    },
    /// Record the end of a call.
    End {
        call: ProviderCallId,
        used_tokens: Option<u64>,
    },
    /// Remove a call that was admitted but not made.
    Withdraw { call: ProviderCallId },
    /// Tell the other nodes that this one does not wait any more.
    GiveUpTurn,
}

/// The admission of one call. Dropping it ends the call, or withdraws it if it has not started.
pub(crate) struct CallTicket {
    call: ProviderCallId,
    tokens: u64,
    /// When the store was asked. The call counts from some later time on.
    requested_at: Instant,
    is_started: bool,
    used_tokens: Option<u64>,
    commands: mpsc::UnboundedSender<AdmissionCommand>,
}

impl CallTicket {
    pub(crate) fn new(
        call: ProviderCallId,
        tokens: u64,
        requested_at: Instant,
        commands: mpsc::UnboundedSender<AdmissionCommand>,
    ) -> Self {
        Self {
            call,
            tokens,
            requested_at,
            is_started: false,
            used_tokens: None,
            commands,
        }
    }

    /// Whether it is too late to start the call.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        !self.is_started && now.duration_since(self.requested_at) > MAX_ADMISSION_AGE
    }

    /// Records that the call is made.
    pub(crate) fn mark_started(&mut self) {
        self.is_started = true;
    }

    /// Ends the call. `used_tokens` replaces the estimate, if it is known.
    pub(crate) fn end(mut self, used_tokens: Option<u64>) {
        self.used_tokens = used_tokens;
    }
}

impl Drop for CallTicket {
    fn drop(&mut self) {
        let (call, used_tokens) = (self.call, self.used_tokens);
        let command = match self.is_started {
            true => AdmissionCommand::End { call, used_tokens },
            false => AdmissionCommand::Withdraw { call },
        };
        // If the worker has ended, so has this node's part in the cluster: its calls end with its lease.
        let _ = self.commands.send(command);
    }
}

/// The result of asking the store once.
pub(crate) enum AdmissionResult {
    /// One call may start.
    Granted(CallTicket),
    /// The store is to be asked again after this time, or when a call of this node has ended.
    AskAgainAfter(Duration),
}

/// Receives the results of an admission worker.
pub(crate) trait AdmissionObserver: Send + Sync {
    /// Records the result for the provider at `provider_index`.
    fn record_admission(&self, provider_index: usize, result: AdmissionResult);
}

/// Whether a request can be assigned.
pub(crate) enum TicketStatus {
    /// Yes, with this ticket.
    Granted(CallTicket),
    /// When the ticket arrives that was asked for.
    Requested,
    /// The store is asked again at this time.
    NotBefore(Instant),
}

enum AdmissionPhase {
    /// No ticket is wanted.
    Idle,
    /// The worker asks the store.
    Requested,
    Granted(CallTicket),
    /// The store has refused a call.
    Waiting {
        until: Instant,
    },
}

/// The dispatcher's side of the admission.
pub(crate) struct SharedAdmission {
    /// `None` after [`SharedAdmission::close`].
    commands: Option<mpsc::UnboundedSender<AdmissionCommand>>,
    limits_tokens: bool,
    /// Whether the store has refused a call, so that this node has a turn, which it may keep after an admission.
    has_turn: bool,
    phase: AdmissionPhase,
}

impl SharedAdmission {
    pub(crate) const fn new(
        commands: mpsc::UnboundedSender<AdmissionCommand>,
        tokens_per_minute: u64,
    ) -> Self {
        Self {
            commands: Some(commands),
            limits_tokens: tokens_per_minute > 0,
            has_turn: false,
            phase: AdmissionPhase::Idle,
        }
    }

    /// Returns the tokens of the ticket that is there. A request with more tokens cannot have it.
    pub(crate) const fn max_tokens_of_ticket(&self) -> Option<u64> {
        match &self.phase {
            AdmissionPhase::Granted(ticket) if self.limits_tokens => Some(ticket.tokens),
            _ => None,
        }
    }

    /// Takes the ticket, or asks for one with this many tokens.
    pub(crate) fn take_or_request_ticket(&mut self, now: Instant, tokens: u64) -> TicketStatus {
        match std::mem::replace(&mut self.phase, AdmissionPhase::Idle) {
            AdmissionPhase::Granted(ticket) if !ticket.has_expired(now) => {
                return TicketStatus::Granted(ticket);
            }
            AdmissionPhase::Waiting { until } if until > now => {
                self.phase = AdmissionPhase::Waiting { until };
                return TicketStatus::NotBefore(until);
            }
            AdmissionPhase::Requested => {}
            // A ticket that has expired is withdrawn before the next is requested.
            AdmissionPhase::Granted(expired) => {
                drop(expired);
                self.request_ticket(tokens);
            }
            AdmissionPhase::Waiting { .. } | AdmissionPhase::Idle => self.request_ticket(tokens),
        }
        self.phase = AdmissionPhase::Requested;
        TicketStatus::Requested
    }

    fn request_ticket(&self, tokens: u64) {
        if let Some(commands) = &self.commands {
            let ticket_commands = commands.clone();
            let _ = commands.send(AdmissionCommand::Begin {
                tokens,
                commands: ticket_commands,
            });
        }
    }

    /// Withdraws the ticket, if there is one. Returns whether there was.
    pub(crate) fn withdraw_ticket(&mut self) -> bool {
        let is_granted = matches!(self.phase, AdmissionPhase::Granted(_));
        if is_granted {
            self.phase = AdmissionPhase::Idle;
        }
        is_granted
    }

    /// Gives up the turn of this node, because it has no request for the provider.
    pub(crate) fn give_up_turn(&mut self) {
        if matches!(self.phase, AdmissionPhase::Waiting { .. }) {
            self.phase = AdmissionPhase::Idle;
        }
        if std::mem::take(&mut self.has_turn)
            && let Some(commands) = &self.commands
        {
            let _ = commands.send(AdmissionCommand::GiveUpTurn);
        }
    }

    /// Asks again at the next request: a call of this node has ended.
    pub(crate) fn end_wait(&mut self) {
        if let AdmissionPhase::Waiting { until } = &mut self.phase {
            *until = Instant::now();
        }
    }

    /// Records what the store has answered.
    pub(crate) fn record_result(&mut self, now: Instant, result: AdmissionResult) {
        // Dropping the ticket withdraws it.
        if self.commands.is_some() {
            self.phase = match result {
                AdmissionResult::Granted(ticket) => AdmissionPhase::Granted(ticket),
                AdmissionResult::AskAgainAfter(wait) => {
                    self.has_turn = true;
                    AdmissionPhase::Waiting { until: now + wait }
                }
            };
        }
    }

    /// Requests no further tickets, and lets the worker end when it has recorded the end of each call.
    pub(crate) fn close(&mut self) {
        self.phase = AdmissionPhase::Idle;
        self.commands = None;
    }
}
