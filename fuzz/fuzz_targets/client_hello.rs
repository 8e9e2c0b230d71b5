//! Any bytes at all for a client's hello, however they are cut: they are read alike, and what rustls takes has the name that
//! it finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_user::passthrough::client_hello::{Read, Reader};
use rustls::server::Acceptor;

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let whole = Reader::default().read(bytes);
    let mut reader = Reader::default();
    let first = reader.read(&bytes[..usize::from(cut).min(bytes.len())]);
    match first {
        Ok(Read::More(more)) => {
            assert!(more > 0);
            assert_eq!(reader.read(bytes), whole);
        }
        done => assert_eq!(done, whole),
    }
    let mut acceptor = Acceptor::default();
    if let Ok(Read::Whole(hello)) = whole
        && acceptor.read_tls(&mut &*bytes).is_ok()
        && let Ok(Some(accepted)) = acceptor.accept()
        && let Some(name) = accepted.client_hello().server_name()
    {
        assert_eq!(hello.name.as_deref(), Some(&*name.to_ascii_lowercase()));
    }
});
