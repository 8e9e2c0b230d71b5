//! An edge host with an interface for clients and one for servers, and the program over maps that the test writes itself.

use std::{net::IpAddr, os::fd::AsFd as _, path::Path};

use aya::{
    Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions,
    maps::{Array, HashMap, Map, MapData, PerCpuArray},
    programs::SchedClassifier,
};
use nix::{libc, net::if_::if_nametoindex};
use proxy_common::{
    flow::{Flow, FlowKey, Origin, State},
    forward::{
        Cursor, Lookup, MAX_TABLES, PLACES, Server, ServerCounters, ServerState, Service, ServiceCounters,
        ServiceKey, Settings, StopReason, Timeouts,
    },
    names,
};

use crate::scratch::{Neighbour, Scratch, ip};

pub const FIRST_PORT: u16 = 20_000;
pub const PORTS: u16 = 4;

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Untouched,
    Dropped,
    /// Sent on or back, and what it was then.
    Sent(Vec<u8>),
}

pub struct Edge {
    ebpf: Ebpf,
    pub outside: u32,
    pub inside: u32,
    /// Held: with them go the interfaces.
    _neighbours: [Neighbour; 2],
}

pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl Edge {
    /// `forwards`: whether the host itself does, and so answers where packets go.
    pub fn new(scratch: &Scratch, forwards: bool) -> Self {
        let neighbours = [scratch.neighbour("out0", "client0"), scratch.neighbour("in0", "server0")];
        for (name, family) in [("ipv4/ip_forward", forwards), ("ipv6/conf/all/forwarding", forwards)] {
            std::fs::write(Path::new("/proc/sys/net").join(name), if family { "1" } else { "0" }).unwrap();
        }
        // Whom the packets of the table are addressed to.
        ip("link set out0 address 02:00:00:00:00:01");
        ip("link set in0 address 02:00:00:00:00:01");
        ip("address add 203.0.113.1/24 dev out0");
        ip("address add 2001:db8:e::1/64 dev out0 nodad");
        ip("address add 10.0.0.1/24 dev in0");
        ip("address add fd00::1/64 dev in0 nodad");
        ip("route add default via 203.0.113.254 dev out0");
        ip("route add unreachable 192.0.2.192/26");
        ip("-6 route add default via 2001:db8:e::fe dev out0");
        for neighbour in ["203.0.113.254", "2001:db8:e::fe"] {
            ip(&format!("neighbour add {neighbour} lladdr 02:00:00:00:00:0a dev out0"));
        }
        for neighbour in ["10.0.0.11", "10.0.0.12", "fd00::11"] {
            ip(&format!("neighbour add {neighbour} lladdr 02:00:00:00:00:0b dev in0"));
        }
        let index = |name: &str| if_nametoindex(name).unwrap();
        let mut edge = Self {
            ebpf: loaded(scratch),
            outside: index("out0"),
            inside: index("in0"),
            _neighbours: neighbours,
        };
        edge.set::<Settings>(names::FORWARD_SETTINGS, 0, settings());
        edge
    }

    pub fn set<T: Pod>(&mut self, map: &str, index: u32, value: T) {
        let mut array: Array<_, T> = self.map(map).try_into().unwrap();
        array.set(index, value, 0).unwrap();
    }

    pub fn service(&mut self, at: (IpAddr, u16), protocol: u8, service: Service) {
        let mut services: HashMap<_, ServiceKey, Service> =
            self.map(names::FORWARD_SERVICES).try_into().unwrap();
        services.insert(ServiceKey::new(mapped(at.0), protocol, at.1), service, 0).unwrap();
    }

    pub fn server(&mut self, slot: u16, at: (IpAddr, u16), source: &str, state: ServerState) {
        let server = Server {
            address: mapped(at.0),
            source: mapped(source.parse().unwrap()),
            port: at.1,
            state: state as u16,
            incarnation: 7,
            interface: self.inside,
            reserved: 0,
        };
        self.set(names::FORWARD_SERVERS, slot.into(), server);
    }

    /// All places of a table to one server.
    pub fn table(&mut self, slot: u16, servers: impl Fn(usize) -> u16) {
        let lookup = Lookup { generation: 1, servers: std::array::from_fn(servers), reserved: [0; 3] };
        let outer = self.map(names::FORWARD_TABLES);
        let Map::ArrayOfMaps(outer) = outer else { panic!("an array of maps") };
        put_table(outer, slot, lookup);
    }

    pub fn flows(&mut self) -> Vec<(FlowKey, Flow)> {
        let flows: HashMap<_, FlowKey, Flow> = self.map(names::FORWARD_FLOWS).try_into().unwrap();
        flows.iter().map(Result::unwrap).collect()
    }

    pub fn replies(&mut self) -> Vec<FlowKey> {
        let replies: HashMap<_, FlowKey, Origin> = self.map(names::FORWARD_REPLIES).try_into().unwrap();
        replies.keys().map(Result::unwrap).collect()
    }

    pub fn only_flow(&mut self) -> Flow {
        let flows = self.flows();
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows[0].1
    }

    pub fn state(&mut self) -> Option<State> {
        State::of_number(self.only_flow().state)
    }

    /// Changes flows as user space might, or time.
    pub fn change_flows(&mut self, change: impl Fn(&mut Flow)) {
        for (key, mut flow) in self.flows() {
            change(&mut flow);
            let mut flows: HashMap<_, FlowKey, Flow> = self.map(names::FORWARD_FLOWS).try_into().unwrap();
            flows.insert(key, flow, 0).unwrap();
        }
    }

    /// As if nobody had come yet.
    pub fn forget(&mut self) {
        for slot in 0..8 {
            self.set(names::FORWARD_CURSORS, slot, Cursor::default());
        }
        for (key, _) in self.flows() {
            let mut flows: HashMap<_, FlowKey, Flow> = self.map(names::FORWARD_FLOWS).try_into().unwrap();
            flows.remove(&key).unwrap();
        }
        for key in self.replies() {
            let mut replies: HashMap<_, FlowKey, Origin> =
                self.map(names::FORWARD_REPLIES).try_into().unwrap();
            replies.remove(&key).unwrap();
        }
    }

    pub fn counters(&mut self, slot: u32) -> ServiceCounters {
        let counters: PerCpuArray<_, ServiceCounters> =
            self.map(names::FORWARD_SERVICE_COUNTERS).try_into().unwrap();
        let mut sum = ServiceCounters::default();
        counters.get(&slot, 0).unwrap().iter().for_each(|of| sum += *of);
        sum
    }

    pub fn server_counters(&mut self, slot: u32) -> ServerCounters {
        let counters: PerCpuArray<_, ServerCounters> =
            self.map(names::FORWARD_SERVER_COUNTERS).try_into().unwrap();
        let mut sum = ServerCounters::default();
        counters.get(&slot, 0).unwrap().iter().for_each(|of| sum += *of);
        sum
    }

    /// Which reasons were counted, by all services, since this was last asked.
    pub fn stopped(&mut self, before: &[ServiceCounters]) -> Vec<StopReason> {
        let now = self.all_counters();
        let more = |reason: &StopReason| {
            now.iter()
                .zip(before)
                .any(|(now, before)| now.stopped(*reason).packets != before.stopped(*reason).packets)
        };
        StopReason::ALL.into_iter().filter(more).collect()
    }

    pub fn all_counters(&mut self) -> Vec<ServiceCounters> {
        (0..8).map(|slot| self.counters(slot)).collect()
    }

    pub fn client_sends(&mut self, frame: &[u8]) -> Outcome {
        self.run(frame, self.outside, 0)
    }

    pub fn server_sends(&mut self, frame: &[u8]) -> Outcome {
        self.run(frame, self.inside, 0)
    }

    /// `payload`: of each packet, where this stands for several.
    pub fn run(&mut self, frame: &[u8], interface: u32, payload: u32) -> Outcome {
        const UNSPEC: u32 = u32::MAX;
        const SHOT: u32 = 2;
        const REDIRECT: u32 = 7;
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&interface.to_ne_bytes());
        context[176..180].copy_from_slice(&payload.to_ne_bytes());
        let mut out = vec![0; frame.len().max(128)];
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(names::FORWARD_TC).unwrap().try_into().unwrap();
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .unwrap();
        out.truncate(result.data_size_out as usize);
        match result.return_value {
            UNSPEC => {
                assert_eq!(out, frame, "what isn't touched stays what it is");
                Outcome::Untouched
            }
            SHOT => Outcome::Dropped,
            REDIRECT => Outcome::Sent(out),
            other => panic!("the program returned {other}"),
        }
    }

    fn map(&mut self, name: &str) -> &mut Map {
        self.ebpf.map_mut(name).unwrap()
    }
}

pub fn settings() -> Settings {
    Settings {
        generation: 1,
        timeouts: Timeouts::DEFAULT,
        first_port: FIRST_PORT,
        ports: PORTS,
        longest_segment: 0,
        flags: 0,
    }
}

fn loaded(scratch: &Scratch) -> Ebpf {
    // As the daemon makes it: Linux before 6.2 takes inner maps only if their types are as unknown as the first one's.
    let tables = scratch.bpffs.join("tables");
    let inner = raw::array(size_of::<Lookup>() as u32);
    raw::pin(&raw::array_of(MAX_TABLES as u32, &inner), &tables);
    let object = proxy_user::kernel::object_built_in().unwrap();
    let mut loader = EbpfLoader::new();
    loader.map_pin_path(names::FORWARD_TABLES, &tables);
    let mut ebpf = loader.load(object).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut(names::FORWARD_TC).unwrap().try_into().unwrap();
    program.load().unwrap();
    ebpf
}

fn put_table(outer: &mut MapData, slot: u16, lookup: Lookup) {
    assert_eq!(lookup.servers.len(), PLACES);
    let inner = raw::array(size_of::<Lookup>() as u32);
    raw::set(inner.as_fd(), 0, std::ptr::from_ref(&lookup).cast());
    let number = std::os::fd::AsRawFd::as_raw_fd(&inner);
    raw::set(outer.fd().as_fd(), slot.into(), std::ptr::from_ref(&number).cast());
}

/// Maps without types.
mod raw {
    use std::{
        ffi::{CString, c_void},
        os::{
            fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
            unix::ffi::OsStrExt as _,
        },
        path::Path,
    };

    use super::libc;

    const CREATE: i64 = 0;
    const UPDATE: i64 = 2;
    const PIN: i64 = 6;
    const ARRAY: u32 = 2;
    const ARRAY_OF_MAPS: u32 = 12;

    pub fn array(value: u32) -> OwnedFd {
        create([ARRAY, 4, value, 1, 0, 0])
    }

    pub fn array_of(slots: u32, inner: &OwnedFd) -> OwnedFd {
        create([ARRAY_OF_MAPS, 4, 4, slots, 0, inner.as_raw_fd() as u32])
    }

    fn create(attributes: [u32; 6]) -> OwnedFd {
        let descriptor = bpf(CREATE, &attributes);
        // SAFETY: the kernel has just given it to us.
        unsafe { OwnedFd::from_raw_fd(descriptor) }
    }

    pub fn set(map: BorrowedFd<'_>, key: u32, value: *const c_void) {
        bpf(UPDATE, &[map.as_raw_fd() as u64, std::ptr::from_ref(&key) as u64, value as u64, 0]);
    }

    pub fn pin(map: &OwnedFd, path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        bpf(PIN, &[path.as_ptr() as u64, map.as_raw_fd() as u64]);
    }

    fn bpf<T>(command: i64, attributes: &T) -> i32 {
        // SAFETY: the attributes are as long as is said, and what they point to is there and as large as the map's values.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
        assert!(result >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
        result as i32
    }
}
