//! What reading a request of HTTP/1 costs, for a head as browsers send it: `cargo bench -p proxy-user --bench head`.

use std::{hint::black_box, time::Instant};

use bytes::BytesMut;
use proxy_user::hygiene::http1::{HeadLimits, Reader};

const HEAD: &str = "GET /products/list?page=2&sort=price HTTP/1.1\r\nHost: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/products\r\nConnection: keep-alive\r\n\
    Cookie: session=0b5b1fd8c2f04bb6a4d3a7ce7c1f6e2f; consent=yes; basket=17%2C42\r\n\
    Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-User: ?1\r\nPriority: u=0, i\r\n\r\n";

fn main() {
    const ROUNDS: u32 = 20_000;
    let mut reader = Reader::new(HeadLimits { fields: 100, size: 65_536 });
    let mut least = u128::MAX;
    for _ in 0..50 {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let mut received = BytesMut::from(black_box(HEAD));
            assert!(reader.head(&mut received).is_ok_and(|asked| asked.is_some()));
        }
        least = least.min(begun.elapsed().as_nanos() / u128::from(ROUNDS));
    }
    #[expect(clippy::print_stdout, reason = "the figure is the output")]
    {
        println!("{least} ns for a head of {} bytes", HEAD.len());
    }
}
