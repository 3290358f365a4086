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
    /// A client's next connection gets another port than the closed one before.
    SparesOwnPorts,
    /// A source that no host has is answered.
    AnswersNobody,
    /// The outer tag's priority is lost on the way.
    DropsPriority,
    /// Frames leave with the tags that they came with.
    KeepsTags,
    /// Replies leave without tags, whatever the requests had.
    LearnsNoTags,
    /// Nothing is too long for any way.
    IgnoresMtu,
    /// Whoever sends to a group of stations is told as well what has become of it.
    TellsGroups,
    /// The node's own errors come from the address that the packet was sent to.
    TellsAsVip,
    /// Quotes end anywhere.
    QuotesOddly,
    /// An error may be for somebody else than the sender of what it quotes.
    BelievesQuotes,
    /// What an error quotes stays as it is.
    KeepsQuotes,
    /// Checksums in a quote stay as they are.
    KeepsQuotedSums,
    /// A quoted datagram without a checksum gets one.
    SumsUnsummedQuotes,
    /// An error's source stays.
    ErrorsKeepSource,
    /// An error about a flow that is over is sent on while its port is held.
    ErrorsOfHeldPorts,
    /// An error counts as an answer.
    ErrorsAnswer,
    /// Fragments of all packets between two addresses are one packet's.
    MixesFragments,
    /// Fragments may come as late as they like.
    FollowsForever,
    /// Echo requests to any address that is looked at are answered.
    AnswersForAll,
    /// Any number of extension headers is followed.
    FollowsAnyNumber,
    /// A packet that is to visit other addresses before is taken for ours.
    SkipsStations,
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
    /// A packet whose checksum is yet to be computed is sent on without one.
    SendsPending,
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
        Self::SparesOwnPorts,
        Self::AnswersNobody,
        Self::DropsPriority,
        Self::KeepsTags,
        Self::LearnsNoTags,
        Self::IgnoresMtu,
        Self::TellsGroups,
        Self::TellsAsVip,
        Self::QuotesOddly,
        Self::BelievesQuotes,
        Self::KeepsQuotes,
        Self::KeepsQuotedSums,
        Self::SumsUnsummedQuotes,
        Self::ErrorsKeepSource,
        Self::ErrorsOfHeldPorts,
        Self::ErrorsAnswer,
        Self::MixesFragments,
        Self::FollowsForever,
        Self::AnswersForAll,
        Self::FollowsAnyNumber,
        Self::SkipsStations,
        Self::AdmitsAll,
        Self::KeepsStrangers,
        Self::ForgetsClients,
        Self::WaitsForAnswers,
        Self::ForgetsTheHeader,
        Self::DropsClass,
        Self::SendsPending,
    ];
}
