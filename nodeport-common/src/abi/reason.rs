//! Why a packet was not simply forwarded: one list for counters, logs, metrics and the README.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet was not simply forwarded. The number is its index in `counters`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The name that counters, metrics and tables show.
            pub const fn label(self) -> &'static str {
                match self { $(Reason::$name => $label,)+ }
            }

            /// What it means, in a sentence or two.
            pub const fn description(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

reasons! {
    /// Passed to the stack: a fragment of a packet that is not ours, or that could not be kept.
    Fragment = 0, "fragment";
    /// Passed to the stack: a header is cut short, contradicts itself, or is not known.
    Unparsed = 1, "unparsed";
    /// Passed to the stack: a TCP packet to a frontend that opens no flow and belongs to none.
    NoFlow = 2, "no_flow";
    /// Refused, or as `--no-backend` says: no backend of the service is usable.
    NoBackend = 3, "no_backend";
    /// Passed to the stack: the source address is one that no client can have.
    MartianSource = 4, "martian_source";
    /// The backend of the flow is gone: what opens a flow is given another one, what is still on
    /// its way from that backend or tears down the connection is not sent on.
    StaleBackend = 5, "stale_backend";
    /// There is no route to the next hop: a packet that would open a flow is passed to the stack,
    /// one of a live flow is dropped.
    HopUnresolved = 6, "hop_unresolved";
    /// The TTL or hop limit ended here: answered with Time Exceeded, or dropped if it was an ICMP
    /// error itself, or a fragment behind the first.
    TtlExceeded = 7, "ttl_exceeded";
    /// Answered with Fragmentation Needed or Packet Too Big: the path ahead is narrower. A fragment
    /// behind the first is dropped instead.
    TooBig = 8, "too_big";
    /// Dropped: no SNAT port was free towards the backend.
    NoPort = 9, "no_port";
    /// The flow could not be stored: a table is full.
    TableFull = 10, "table_full";
    /// An ICMP error translated and sent along its flow.
    IcmpTranslated = 11, "icmp_translated";
    /// Dropped: an ICMP error of ours was due, but this second's budget is used up.
    ErrorLimit = 12, "error_limit";
    /// A half of a flow that had lost its partner was given it back.
    PartnerRebuilt = 13, "partner_rebuilt";
    /// Passed to the stack: new flows are refused while the node drains.
    Draining = 14, "draining";
    /// Dropped: the frame could not be changed as needed.
    Failed = 15, "failed";
    /// Dropped: another CPU was opening the same flow; the sender sends again.
    Raced = 16, "raced";
    /// Dropped: the service's policy is Local, and none of its endpoints that could answer is here.
    NoLocalBackend = 17, "no_local_backend";
    /// Dropped: the source is in none of the service's `loadBalancerSourceRanges`.
    SourceRange = 18, "source_range";
    /// Kept: a fragment that came before the first one of its packet.
    FragmentKept = 19, "fragment_kept";
    /// A fragment that was kept, sent on when the first one came.
    FragmentSent = 20, "fragment_sent";
    /// A fragment that was kept and whose first one did not come in time.
    FragmentLate = 21, "fragment_late";
    /// A fragment that was kept and made room for a newer one, before its time was over.
    FragmentOusted = 22, "fragment_ousted";
    /// Dropped: a fragment whose first one was refused or dropped, whose flow is gone, or of which
    /// too many came before the first.
    FragmentDropped = 23, "fragment_dropped";
    /// Answered with a TCP reset: a segment of a connection whose backend is gone.
    ConnectionReset = 24, "connection_reset";
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn numbers_are_dense_and_labels_unique() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            for other in &Reason::ALL[..index] {
                assert_ne!(reason.label(), other.label());
            }
        }
    }
}
