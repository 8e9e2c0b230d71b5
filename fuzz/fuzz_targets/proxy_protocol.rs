//! Any bytes at all for a header of the PROXY protocol: nothing panics, and what is read and written again is read alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_user::proxy_protocol::{Version, version_1, version_2, written};

fuzz_target!(|bytes: &[u8]| {
    let with_signature = [b"\r\n\r\n\0\r\nQUIT\n", bytes].concat();
    for read in [version_1(bytes), version_2(bytes), version_2(&with_signature)] {
        let Ok(Some(ends)) = read else { continue };
        // Both ends of one family, and none in the other's clothes: those are told in the other family.
        let plain = [ends.source, ends.destination].map(|end| end.ip().to_canonical() == end.ip());
        if plain == [true, true] {
            assert_eq!(version_1(&written(Version::V1, Some(ends))), Ok(Some(ends)));
            assert_eq!(version_2(&written(Version::V2, Some(ends))), Ok(Some(ends)));
        }
    }
});
