//! What the program itself takes for one packet of a flow, at tcx and at XDP: parsed, looked up, rewritten, sent on. Run by
//! BPF_PROG_TEST_RUN, which shows the program alone: not what the kernel does before the hook (at tcx it has made a socket buffer by
//! then) and behind it.

use anyhow::{Context, ensure};
use aya::{
    Ebpf, TestRun, TestRunOptions,
    maps::{Array, HashMap},
    programs::{SchedClassifier, Xdp},
};
use nix::net::if_::if_nametoindex;
use proxy_common::{
    flow::{Flow, FlowKey, State},
    forward::{Server, ServerState, Service, ServiceKey, Settings, Timeouts},
    names, scope,
};

use crate::bench::host::{Neighbour, ip, object, program, with_host};

/// The packet is changed in its place, so it loses a hop each time.
const REPEAT: u32 = 200;
const HOPS: u8 = 255;
const RUNS: usize = 3000;

const TC_ACT_REDIRECT: u32 = 7;
const XDP_REDIRECT: u32 = 4;

const CLIENT: [u8; 4] = [10, 0, 0, 9];
const SERVER: [u8; 4] = [10, 0, 0, 11];
const CLIENT_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 443;

/// Nanoseconds for a packet, the least of all runs.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    pub tc: f64,
    pub xdp: f64,
}

pub fn run() -> anyhow::Result<Hooks> {
    with_host(|_| {
        let neighbour = Neighbour::new()?;
        neighbour.connect("edge0", "there0")?;
        ip("address add 10.0.0.1/24 dev edge0")?;
        ip("neighbour add 10.0.0.11 lladdr 02:00:00:00:00:02 dev edge0")?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let interface = if_nametoindex("edge0")?;
        let mut ebpf = Ebpf::load(object()?)?;
        fill(&mut ebpf, interface)?;
        let packet = packet();

        let tc: &mut SchedClassifier = program(&mut ebpf, names::FORWARD_TC)?.try_into()?;
        tc.load()?;
        // `ifindex` of the context.
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&interface.to_ne_bytes());
        let tc = fastest(tc, &packet, Some(&context), TC_ACT_REDIRECT).context("at tcx")?;

        let xdp: &mut Xdp = program(&mut ebpf, names::FORWARD_AT_XDP)?.try_into()?;
        xdp.load()?;
        let xdp = fastest(xdp, &packet, None, XDP_REDIRECT).context("at XDP")?;
        Ok(Hooks { tc, xdp })
    })
}

/// A service and a flow whose packets become what they are: the work is the same.
fn fill(ebpf: &mut Ebpf, interface: u32) -> anyhow::Result<()> {
    let mapped = |[a, b, c, d]: [u8; 4]| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    let settings = Settings {
        generation: 1,
        timeouts: Timeouts::DEFAULT,
        first_port: 20_000,
        ports: 10_000,
        longest_segment: 0,
        flags: 0,
    };
    let mut map: Array<_, Settings> = map(ebpf, names::FORWARD_SETTINGS)?.try_into()?;
    map.set(0, settings, 0)?;
    let server = Server {
        address: mapped(SERVER),
        port: SERVER_PORT,
        state: ServerState::Serving as u16,
        incarnation: 1,
        interface,
        ..Server::default()
    };
    let mut map: Array<_, Server> = self::map(ebpf, names::FORWARD_SERVERS)?.try_into()?;
    map.set(1, server, 0)?;
    let service = Service { generation: 1, slot: 1, table: 1, idle: 3600, ..Service::default() };
    let mut map: HashMap<_, ServiceKey, Service> = self::map(ebpf, names::FORWARD_SERVICES)?.try_into()?;
    map.insert(ServiceKey::new(mapped(SERVER), scope::TCP, SERVER_PORT), service, 0)?;
    let key = FlowKey {
        source: mapped(CLIENT),
        destination: mapped(SERVER),
        source_port: CLIENT_PORT,
        destination_port: SERVER_PORT,
        protocol: scope::TCP.into(),
        reserved: 0,
    };
    let flow = Flow {
        source: mapped(CLIENT),
        server: mapped(SERVER),
        source_port: CLIENT_PORT,
        server_port: SERVER_PORT,
        state: State::Open as u16,
        service: 1,
        server_slot: 1,
        incarnation: 1,
        idle: 3600,
        client_interface: interface,
        server_interface: interface,
        ..Flow::default()
    };
    let mut map: HashMap<_, FlowKey, Flow> = self::map(ebpf, names::FORWARD_FLOWS)?.try_into()?;
    map.insert(key, flow, 0)?;
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name).with_context(|| format!("no map `{name}` in the eBPF object"))
}

/// A segment with a timestamp and a few bytes. Nobody looks at its checksums, which are mended like right ones.
fn packet() -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    packet.extend([0x45, 0, 0, 68, 0, 1, 0x40, 0, HOPS, scope::TCP, 0, 0]);
    packet.extend([CLIENT, SERVER].concat());
    packet.extend([CLIENT_PORT.to_be_bytes(), SERVER_PORT.to_be_bytes()].concat());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
    packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    packet.extend([0x55; 16]);
    packet
}

fn fastest<P>(program: &P, packet: &[u8], context: Option<&[u8]>, wanted: u32) -> anyhow::Result<f64>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = aya::TestRunResult>,
{
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: context,
            repeat: REPEAT,
            ..TestRunOptions::default()
        };
        let ran = program.test_run(options)?;
        ensure!(ran.return_value == wanted, "the program returned {} instead of {wanted}", ran.return_value);
        least = least.min(ran.duration.as_nanos() as f64);
    }
    Ok(least)
}
