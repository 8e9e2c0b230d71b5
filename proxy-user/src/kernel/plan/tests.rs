use std::sync::Arc;

use proxy_common::scope::{TCP, UDP};

use super::*;
use crate::{config::model::SynCookies, kernel::Protocol};

fn list(name: &str, prefixes: &[&str]) -> NamedList {
    NamedList {
        name: name.into(),
        cdn: false,
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
    }
}

fn planned(generation: u64, guarded: &[GuardedAddresses], observed: &Observed) -> Result<Plan, KernelFault> {
    tables(generation, guarded, Blocks::default(), observed)
}

fn guarded(entrypoint: &str, address: &str, lists: &[NamedList]) -> GuardedAddresses {
    GuardedAddresses {
        entrypoint: Arc::from(entrypoint),
        named: vec![address.parse().unwrap()],
        meant: Vec::new(),
        protocols: vec![Protocol::Tcp],
        lists: lists.to_vec(),
        shadow: false,
        limit: None,
        syn_cookies: SynCookies::OFF,
    }
}

/// What is observed after `plan` was applied.
fn applied(plan: &Plan) -> Observed {
    let mut observed = Observed { known: plan.known.clone(), ..Observed::default() };
    observed.entrypoints = vec![None; MAX_ENTRYPOINTS];
    observed.lists = vec![None; MAX_LISTS];
    for named in &plan.entrypoints {
        observed.entrypoints[named.slot as usize] = Some(named.name.clone());
    }
    for named in &plan.lists {
        observed.lists[named.slot as usize] = Some(named.name.clone());
    }
    observed.in_use = plan.known.keys().copied().collect();
    observed
}

fn policy<'a>(plan: &'a Plan, address: &str, port: u16) -> Option<&'a Policy> {
    let socket = SocketAddr::new(address.parse().unwrap(), port);
    plan.scope.get(&ScopeKey::new(octets(&socket), TCP, port))
}

#[test]
fn an_entrypoint_is_guarded_at_its_port_and_its_address_where_the_port_hides() {
    let cf = list("cf", &["192.0.2.0/24"]);
    let plan = planned(7, &[guarded("https", "10.0.0.1:443", &[cf])], &Observed::default()).unwrap();

    assert_eq!(policy(&plan, "10.0.0.1", 443).unwrap().entrypoint, 1);
    let whole = ScopeKey::whole(octets(&"10.0.0.1:0".parse().unwrap()));
    assert_eq!(u32::from(plan.scope[&whole].entrypoint), UNATTRIBUTED);
    assert_eq!(plan.generation, 7);
    assert_eq!(policy(&plan, "10.0.0.1", 22), None);
    assert_eq!(guarded_entries(&plan.scope), 1);
}

#[test]
fn a_changed_list_goes_to_a_slot_that_nothing_uses_and_frees_the_old_one() {
    let before = planned(
        1,
        &[guarded("https", "10.0.0.1:443", &[list("cf", &["192.0.2.0/24"])])],
        &Observed::default(),
    )
    .unwrap();
    let old = u32::from(policy(&before, "10.0.0.1", 443).unwrap().admission);

    let changed = [guarded("https", "10.0.0.1:443", &[list("cf", &["198.51.100.0/24"])])];
    let after = planned(2, &changed, &applied(&before)).unwrap();
    let new = u32::from(policy(&after, "10.0.0.1", 443).unwrap().admission);

    assert_ne!(old, new);
    assert_eq!(after.free, BTreeSet::from([old]));
    assert_eq!(after.fill.keys().copied().collect::<Vec<_>>(), [new]);
}

#[test]
fn an_unchanged_list_keeps_its_slot() {
    let same = [guarded("https", "10.0.0.1:443", &[list("cf", &["192.0.2.0/24"])])];
    let before = planned(1, &same, &Observed::default()).unwrap();
    let after = planned(2, &same, &applied(&before)).unwrap();
    assert!(after.fill.is_empty());
    assert!(after.free.is_empty());
    assert_eq!(policy(&after, "10.0.0.1", 443), policy(&before, "10.0.0.1", 443));
}

#[test]
fn slots_in_use_by_an_unknown_predecessor_are_never_written() {
    let observed = Observed { in_use: BTreeSet::from([0, 1, 3]), ..Observed::default() };
    let wanted = [
        guarded("a", "10.0.0.1:443", &[list("x", &["192.0.2.0/24"])]),
        guarded("b", "10.0.0.1:444", &[list("y", &["198.51.100.0/24"])]),
    ];
    let plan = planned(1, &wanted, &observed).unwrap();
    assert_eq!(plan.fill.keys().copied().collect::<Vec<_>>(), [2, 4]);
    assert_eq!(plan.free, BTreeSet::from([0, 1, 3]));
}

#[test]
fn entrypoints_with_the_same_lists_share_a_slot() {
    let cf = list("cf", &["192.0.2.0/24"]);
    let wanted =
        [guarded("a", "10.0.0.1:443", std::slice::from_ref(&cf)), guarded("b", "10.0.0.1:444", &[cf])];
    let plan = planned(1, &wanted, &Observed::default()).unwrap();
    assert_eq!(plan.fill.len(), 1);
}

#[test]
fn an_address_that_is_named_is_not_taken_by_a_wildcard() {
    let strict = guarded("strict", "10.0.0.1:443", &[list("x", &["192.0.2.0/24"])]);
    let mut wide = guarded("wide", "10.0.0.2:443", &[list("y", &["0.0.0.0/0"])]);
    wide.meant = vec!["10.0.0.1:443".parse().unwrap(), "10.0.0.3:443".parse().unwrap()];
    for wanted in [[strict.clone(), wide.clone()], [wide, strict]] {
        let plan = planned(1, &wanted, &Observed::default()).unwrap();
        let of = |address: &str| u32::from(policy(&plan, address, 443).unwrap().entrypoint);
        assert_eq!(of("10.0.0.1"), slot_named(&plan.entrypoints, "strict"));
        assert_eq!(of("10.0.0.3"), slot_named(&plan.entrypoints, "wide"));
    }
}

#[test]
fn a_name_keeps_its_slot_when_others_come_and_go() {
    let cf = || [list("cf", &["192.0.2.0/24"])];
    let two = [guarded("a", "10.0.0.1:1", &cf()), guarded("b", "10.0.0.1:2", &cf())];
    let before = planned(1, &two, &Observed::default()).unwrap();
    let slot = slot_named(&before.entrypoints, "b");

    let other = [guarded("c", "10.0.0.1:3", &cf()), guarded("b", "10.0.0.1:2", &cf())];
    let after = planned(2, &other, &applied(&before)).unwrap();
    assert_eq!(slot_named(&after.entrypoints, "b"), slot);
    // `a`'s counters are kept while there is room for `c` elsewhere.
    assert_ne!(slot_named(&after.entrypoints, "c"), slot_named(&before.entrypoints, "a"));
}

#[test]
fn an_entrypoint_admits_who_is_on_any_of_its_lists() {
    let lists = [list("x", &["192.0.2.0/24"]), list("y", &["192.0.2.0/24", "198.51.100.0/24"])];
    let plan = planned(1, &[guarded("a", "10.0.0.1:443", &lists)], &Observed::default()).unwrap();
    let admission = plan.fill.values().next().unwrap();
    for (address, admitted) in [("192.0.2.1", true), ("198.51.100.1", true), ("203.0.113.1", false)] {
        assert_eq!(admission.contains(address.parse().unwrap()), admitted, "{address}");
    }
}

#[test]
fn a_cdns_lists_stand_in_a_slot_of_their_own_that_is_shared_where_it_can_be() {
    let cdn = || NamedList { cdn: true, ..list("cdn", &["192.0.2.0/24"]) };
    let office = || list("office", &["198.51.100.0/24"]);
    let wanted = [
        guarded("mixed", "10.0.0.1:1", &[cdn(), office()]),
        guarded("cdn", "10.0.0.1:2", &[cdn()]),
        guarded("office", "10.0.0.1:3", &[office()]),
    ];
    let before = planned(1, &wanted, &Observed::default()).unwrap();
    let [mixed, only, office] = [1, 2, 3].map(|port| policy(&before, "10.0.0.1", port).unwrap());
    assert_eq!((only.cdn, office.cdn), (only.admission, Policy::NO_CDN));
    assert_eq!((mixed.cdn, before.fill.len()), (only.admission, 3));

    // While something refers to them they are kept, and let go with the last.
    let same = planned(2, &wanted, &applied(&before)).unwrap();
    assert!(same.fill.is_empty() && same.free.is_empty());
    let less = planned(3, &wanted[..1], &applied(&before)).unwrap();
    assert_eq!(less.free, BTreeSet::from([office.admission.into()]));
}

#[test]
fn a_name_that_is_too_long_is_refused_by_name() {
    let long = "x".repeat(64);
    let fault = planned(1, &[guarded(&long, "10.0.0.1:443", &[])], &Observed::default()).unwrap_err();
    assert!(fault.to_string().contains(&long));
}

#[test]
fn each_protocol_is_guarded_for_itself() {
    let mut quic = guarded("quic", "10.0.0.1:443", &[list("x", &["192.0.2.0/24"])]);
    quic.protocols = vec![Protocol::Udp];
    let plan = planned(1, &[quic], &Observed::default()).unwrap();
    assert_eq!(policy(&plan, "10.0.0.1", 443), None);
    let address = octets(&"10.0.0.1:443".parse().unwrap());
    assert!(plan.scope.contains_key(&ScopeKey::new(address, UDP, 443)));
    assert_eq!(guarded_entries(&plan.scope), 1);
}

#[test]
fn what_is_for_an_address_is_only_rehearsed_if_all_of_its_entrypoints_are() {
    let cf = || [list("cf", &["192.0.2.0/24"])];
    let shadowed = |port| {
        let mut entry = guarded(&format!("shadowed-{port}"), &format!("10.0.0.1:{port}"), &cf());
        entry.shadow = true;
        entry
    };
    let whole = ScopeKey::whole(octets(&"10.0.0.1:0".parse().unwrap()));
    let shadow_of = |wanted: &[GuardedAddresses]| {
        let plan = planned(1, wanted, &Observed::default()).unwrap();
        let shadow = |key: ScopeKey| plan.scope[&key].shadow != 0;
        (policy(&plan, "10.0.0.1", 1).unwrap().shadow != 0, shadow(whole), shadow(ScopeKey::ANYTHING))
    };
    assert_eq!(shadow_of(&[shadowed(1), shadowed(2)]), (true, true, true));
    let earnest = guarded("earnest", "10.0.0.1:3", &cf());
    assert_eq!(shadow_of(&[shadowed(1), earnest.clone()]), (true, false, false));
    assert_eq!(shadow_of(&[earnest, shadowed(1)]), (true, false, false));
}
