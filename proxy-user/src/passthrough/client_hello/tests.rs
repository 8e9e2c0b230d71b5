use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, server::Acceptor};

use super::*;

/// The hello of a real client, in one record.
fn of_rustls(name: &str, protocols: &[&[u8]]) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn named(names: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|(kind, name)| [&[*kind][..], &(name.len() as u16).to_be_bytes(), name].concat())
        .collect();
    extension(SERVER_NAME, &[&(list.len() as u16).to_be_bytes()[..], &list].concat())
}

fn message(extensions: Option<&[Vec<u8>]>) -> Vec<u8> {
    let mut body =
        [&[3, 3][..], &[7; 32], &[32], &[9; 32], &[0, 4, 0x0a, 0x0a, 0x13, 0x01], &[1, 0]].concat();
    if let Some(extensions) = extensions {
        let all = extensions.concat();
        body.extend_from_slice(&(all.len() as u16).to_be_bytes());
        body.extend_from_slice(&all);
    }
    let length = (body.len() as u32).to_be_bytes();
    [&[CLIENT_HELLO][..], &length[1..], &body].concat()
}

fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[HANDSHAKE, 3, 1][..], &(piece.len() as u16).to_be_bytes(), piece].concat();
    message.chunks(size).flat_map(record).collect()
}

fn at_once(bytes: &[u8]) -> Result<Read, Unreadable> {
    Reader::default().read(bytes)
}

fn name_of(extensions: &[Vec<u8>]) -> Result<Option<String>, Unreadable> {
    match at_once(&in_records(&message(Some(extensions)), LONGEST_RECORD))? {
        Read::Whole(hello) => Ok(hello.name.map(String::from)),
        Read::More(more) => panic!("{more} more"),
    }
}

#[test]
fn real_hellos_are_read_like_rustls_reads_them() {
    let browser: &[&[u8]] = &[b"h2", b"http/1.1"];
    for (name, protocols) in
        [("app.example.com", &[][..]), ("xn--bcher-kva.example", browser), ("a.b", &[crate::acme::ALPN])]
    {
        let bytes = of_rustls(name, protocols);
        let Ok(Read::Whole(hello)) = at_once(&bytes) else { panic!("{:?}", at_once(&bytes)) };
        assert_eq!(hello.name.as_deref(), Some(name));
        assert_eq!(hello.wants_proof, protocols == [crate::acme::ALPN]);
        assert_eq!(told_by_rustls(&bytes).as_deref(), Some(name));
    }
    let Ok(Read::Whole(hello)) = at_once(&of_rustls("192.0.2.1", &[])) else { panic!() };
    assert_eq!(hello.name, None, "an address is no name");
}

fn told_by_rustls(bytes: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &*bytes).ok()?;
    acceptor.accept().ok()??.client_hello().server_name().map(str::to_owned)
}

/// However a hello is cut: at each byte it is told that some are missing, never more than there are, and then it is whole.
#[test]
fn a_hello_may_be_cut_anywhere() {
    let message = message(Some(&[named(&[(0, b"app.example.com")]), extension(0x1a1a, &[])]));
    for size in [1, 2, 3, 7, 40, 4096] {
        let bytes = in_records(&message, size);
        let mut reader = Reader::default();
        let mut awaited = 0;
        for length in 0..bytes.len() {
            match reader.read(&bytes[..length]) {
                Ok(Read::More(more)) => {
                    assert!(more > 0 && length + more <= bytes.len(), "{more} more than {length}");
                    // What is awaited may only be promised from where something was learnt.
                    assert!(length + more >= awaited, "{more} more than {length}");
                    awaited = length + more;
                }
                other => panic!("{other:?} after {length} of {}", bytes.len()),
            }
            assert_eq!(at_once(&bytes[..length]), Ok(Read::More(awaited - length)));
        }
        let Ok(Read::Whole(hello)) = reader.read(&bytes) else { panic!("{size}") };
        assert_eq!(hello.name.as_deref(), Some("app.example.com"));
    }
}

#[test]
fn a_hello_may_be_longer_than_a_record_but_not_endless() {
    for (padding, read) in [(20_000, true), (60_000, true), (65_530, false)] {
        let message = message(Some(&[extension(41, &vec![0; padding - 100]), named(&[(0, b"a.example")])]));
        let whole = in_records(&message, LONGEST_RECORD);
        match at_once(&whole) {
            Ok(Read::Whole(hello)) => {
                assert!(read && hello.name.as_deref() == Some("a.example"), "{padding}");
            }
            other => assert!(!read && other == Err(Unreadable::TooLong), "{padding}: {other:?}"),
        }
    }
    // Told by its length, long before it is there.
    assert_eq!(at_once(&[22, 3, 1, 0x40, 0, 1, 1, 0, 1]), Err(Unreadable::TooLong));
    // Records of a byte each are six times as long as what they hold.
    let tiny = in_records(&message(Some(&[extension(41, &[0; 12_000])])), 1);
    assert_eq!(at_once(&tiny), Err(Unreadable::TooLong));
}

#[test]
fn the_name_is_found_among_whatever_else_there_is() {
    let grease = extension(0x5a5a, &[0]);
    let name = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(
        name_of(&[grease.clone(), named(&[(0, b"App.Example.COM.")]), grease.clone()]),
        name("app.example.com")
    );
    assert_eq!(name_of(&[named(&[(7, b"?"), (0, b"a_b.example")])]), name("a_b.example"));
    assert_eq!(name_of(&[grease]), Ok(None));
    assert_eq!(name_of(&[]), Ok(None));
    for none in [&b"192.0.2.1"[..], b"2001:db8::1", b"a..b", b".", b"a b", b"\xffa", b"a\0b", &[b'a'; 64]] {
        assert_eq!(name_of(&[named(&[(0, none)])]), Ok(None), "{none:?}");
    }
    let Ok(Read::Whole(old)) = at_once(&in_records(&message(None), 500)) else { panic!() };
    assert_eq!(old, Hello::default(), "no extensions at all");
    let outer = [extension(ENCRYPTED_HELLO, &[0, 1, 2]), named(&[(0, b"front.example")])];
    let Ok(Read::Whole(hello)) = at_once(&in_records(&message(Some(&outer)), 500)) else { panic!() };
    assert!(hello.has_inner && hello.name.as_deref() == Some("front.example"));
}

#[test]
fn what_could_be_read_in_two_ways_is_not_read() {
    let one = named(&[(0, b"a.example")]);
    let two = named(&[(0, b"b.example")]);
    for (extensions, what) in [
        (vec![one.clone(), two], "two extensions"),
        (vec![named(&[(0, b"a.example"), (0, b"b.example")])], "two names"),
        (vec![named(&[])], "an empty list"),
        (vec![extension(SERVER_NAME, &[0, 9, 0, 0, 1, b'a'])], "a list that is longer than the extension"),
        (vec![extension(SERVER_NAME, &[0, 4, 0, 0, 1, b'a', 0])], "something behind the list"),
        (vec![one.clone(), vec![0, 16, 0, 9]], "an extension that isn't there"),
    ] {
        assert_eq!(name_of(&extensions), Err(Unreadable::Malformed), "{what}");
    }
    let mut longer = message(Some(&[one]));
    longer.push(0);
    longer[3] += 1;
    assert_eq!(
        at_once(&in_records(&longer, 500)),
        Err(Unreadable::Malformed),
        "something behind the extensions"
    );
}

#[test]
fn whoever_speaks_something_else_is_known_by_his_first_bytes() {
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0",
        b"\x80\x2e\x01",
        b"\x16\x02",
        b"\x17",
        b"\x16\x03\x01\0\0",
        b"\x16\x03\x01\xff\xff",
    ] {
        assert_eq!(at_once(other), Err(Unreadable::NotTls), "{other:?}");
        for length in 0..other.len() {
            assert!(matches!(at_once(&other[..length]), Ok(Read::More(_)) | Err(Unreadable::NotTls)));
        }
    }
    assert_eq!(at_once(&[22, 3, 1, 0, 4, 2]), Err(Unreadable::Malformed), "a server's hello");
    assert_eq!(at_once(&[22, 3, 1, 0, 1, 1, 21]), Err(Unreadable::Malformed), "an alert within it");
}

proptest! {
    /// Whatever comes, and however it is cut, it is read alike; and what rustls takes, with a name, is read as that name.
    #[test]
    fn no_bytes_are_read_in_two_ways(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 1usize..600).prop_map(|(changes, size)| {
                let base = of_rustls("app.example.com", &[b"h2"]);
                let mut bytes = in_records(&base[5..], size);
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                bytes
            }),
        ],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = at_once(&bytes);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.sort_unstable();
        let mut reader = Reader::default();
        let mut last = Ok(Read::More(1));
        for end in ends.into_iter().chain([bytes.len()]) {
            last = reader.read(&bytes[..end]);
            if !matches!(last, Ok(Read::More(_))) {
                break;
            }
        }
        prop_assert_eq!(&last, &whole);
        if let (Ok(Read::Whole(hello)), Some(name)) = (&whole, told_by_rustls(&bytes)) {
            prop_assert_eq!(hello.name.as_deref(), Some(&*name.to_ascii_lowercase()));
        }
    }
}
