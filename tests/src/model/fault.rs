//! Rules that are wrong on purpose. A comparison that does not find each of them out proves
//! nothing.

/// A wrong rule of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// TTL and hop limit stay.
    KeepsTtl,
    /// Blocked sources pass.
    BlocksNobody,
    /// A fragment is read as a whole packet.
    FragmentsAreWhole,
    /// A datagram without a checksum gets one.
    SumsUnsummed,
    /// A FIN changes no state.
    OverlooksFin,
    /// A SYN never begins a flow anew.
    KeepsClosed,
    /// UDP flows stay at a backend that is no longer active.
    KeepsDead,
    /// A client's port within the range is not kept.
    DrawsPort,
    /// Idle flows are never replaced.
    NeverExpires,
    /// A replaced flow leaves its other half behind.
    LeavesHalf,
    /// Replies go on where the first request came from.
    NeverLearns,
    /// A reset of an unknown flow begins one.
    ResetsBegin,
    /// A backend that takes no new flows is given some.
    SelectsInactive,
    /// A deleted VIP's flows are foreign at once.
    ForgetsVips,
    /// A UDP flow is established by the answer alone.
    AnswerEstablishes,
    /// Closed flows give way no sooner than established ones.
    SparesClosed,
    /// Flows without an answer never give way.
    SparesUnanswered,
    /// A new connection in a closed one's place frees its port too.
    ForgetsPorts,
    /// A closed flow's port is never given away.
    SparesPorts,
    /// A restricted service admits every source.
    AdmitsAll,
    /// Flows of clients that are not admitted any more go on.
    KeepsStrangers,
    /// A client's connections are balanced one by one, whatever the service says.
    ForgetsClients,
    /// A flow whose answers do not come by is taken for one that has lost its other half.
    WaitsForAnswers,
    /// A packet may be as long as the link admits, whatever is put around it.
    ForgetsTheHeader,
    /// The header around a packet has its own type of service.
    DropsClass,
}

impl Fault {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::KeepsTtl,
        Self::BlocksNobody,
        Self::FragmentsAreWhole,
        Self::SumsUnsummed,
        Self::OverlooksFin,
        Self::KeepsClosed,
        Self::KeepsDead,
        Self::DrawsPort,
        Self::NeverExpires,
        Self::LeavesHalf,
        Self::NeverLearns,
        Self::ResetsBegin,
        Self::SelectsInactive,
        Self::ForgetsVips,
        Self::AnswerEstablishes,
        Self::SparesClosed,
        Self::SparesUnanswered,
        Self::ForgetsPorts,
        Self::SparesPorts,
        Self::AdmitsAll,
        Self::KeepsStrangers,
        Self::ForgetsClients,
        Self::WaitsForAnswers,
        Self::ForgetsTheHeader,
        Self::DropsClass,
    ];
}
