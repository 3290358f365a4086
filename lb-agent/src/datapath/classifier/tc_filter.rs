//! Which program a tc filter has, as the kernel says (rtnetlink(7), `RTM_GETTFILTER`).

use std::io;

use aya::programs::{TcAttachType, tc::TcHandle};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcFilterBpfOption, TcHandle as Handle, TcHeader, TcMessage, TcOption},
    },
};

/// What the kernel answers where there is none: without the filter, without any filter on that
/// side or without the qdisc (net/sched/cls_api.c), and without the interface.
const ABSENT: [i32; 3] = [libc::ENOENT, libc::EINVAL, libc::ENODEV];

/// The number of the program of a filter that takes packets of any protocol; `None`: there is no
/// such filter.
///
/// # Errors
///
/// The kernel cannot be asked, or its answer cannot be read.
pub(super) fn program(
    ifindex: u32,
    side: TcAttachType,
    priority: u16,
    handle: TcHandle,
) -> io::Result<Option<u32>> {
    let mut filter = TcMessage::default();
    filter.header = TcHeader {
        index: ifindex.cast_signed(),
        handle: Handle::from(u32::from(handle)),
        parent: Handle {
            minor: match side {
                TcAttachType::Egress => Handle::MIN_EGRESS,
                _ => Handle::MIN_INGRESS,
            },
            ..Handle::CLSACT
        },
        info: u32::from(priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be()),
        ..TcHeader::default()
    };
    let mut question = NetlinkMessage::from(RouteNetlinkMessage::GetTrafficFilter(filter));
    question.header.flags = NLM_F_REQUEST;
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);

    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
    match answer.map_err(io::Error::other)?.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
            Ok(number(&filter))
        }
        NetlinkPayload::Error(error) => match error.to_io() {
            error
                if error
                    .raw_os_error()
                    .is_some_and(|code| ABSENT.contains(&code)) =>
            {
                Ok(None)
            }
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn number(filter: &TcMessage) -> Option<u32> {
    let options = filter.attributes.iter().filter_map(|one| match one {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    })
}
