use std::task::Waker;

use super::*;

/// A body that comes in these pieces: it streams into a parcel through a body that was kept before.
fn streaming(pieces: &[&str], trailers: Option<HeaderMap>) -> RequestBody {
    let memory = Memory::default();
    let source = RequestBody::whole(Bytes::new(), trailers);
    let data: Vec<u8> = pieces.concat().into_bytes();
    let held = data.capacity();
    assert!(memory.take(held));
    let inner = Inner {
        source,
        data,
        trailers: None,
        over: false,
        keeping: true,
        settled: false,
        most: usize::MAX,
        memory,
        held,
        reader: 1,
    };
    RequestBody::Kept(KeptBody { kept: Rc::new(Kept(RefCell::new(inner))), reader: 1, read: 0, over: false })
}

/// All that an attempt reads: data, trailers, and whether it broke off.
fn read(body: &mut RequestBody) -> (String, Option<HeaderMap>, bool) {
    let (mut data, mut trailers) = (Vec::new(), None);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => data.extend_from_slice(&piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Poll::Ready(Some(Err(_))) => return (String::from_utf8(data).unwrap(), trailers, true),
            Poll::Ready(None) => return (String::from_utf8(data).unwrap(), trailers, false),
            Poll::Pending => panic!("the source is always ready"),
        }
    }
}

fn parcel(text: &str, most: usize, memory: &Memory) -> Parcel {
    Parcel::new(streaming(&[text], None), Some(most), memory)
}

#[test]
fn what_was_sent_can_be_sent_again() {
    let memory = Memory::default();
    let mut parcel = parcel("hello", 64, &memory);
    for _ in 0..3 {
        assert!(parcel.can_be_sent_again());
        let mut body = parcel.body().unwrap();
        assert_eq!(read(&mut body), ("hello".into(), None, false));
        assert!(body.is_end_stream() && parcel.is_whole());
    }
    assert!((5..64).contains(&memory.0.get()), "{} bytes are kept", memory.0.get());
    drop(parcel);
    assert_eq!(memory.0.get(), 0);
}

#[test]
fn trailers_are_sent_again_too() {
    let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
    let source = streaming(&["hello"], Some(trailers.clone()));
    let mut parcel = Parcel::new(source, Some(64), &Memory::default());
    for _ in 0..2 {
        let mut body = parcel.body().unwrap();
        assert_eq!(read(&mut body), ("hello".into(), Some(trailers.clone()), false));
        assert_eq!(read(&mut body), (String::new(), None, false));
    }
}

#[test]
fn what_is_too_long_goes_through_once() {
    let memory = Memory::default();
    // What the client says of the length is enough to know it.
    let mut told = parcel("hello", 4, &memory);
    assert!(matches!(told, Parcel::Once(_)));
    assert_eq!(read(&mut told.body().unwrap()).0, "hello");
    assert!(!told.can_be_sent_again() && told.body().is_none());
    // Without a word of it, it is found out on the way.
    let trailers = Some(HeaderMap::new());
    let mut untold = Parcel::new(streaming(&["hello"], trailers), Some(4), &memory);
    assert!(untold.can_be_sent_again() && !untold.can_surely_be_sent_again());
    assert_eq!(read(&mut untold.body().unwrap()).0, "hello");
    assert!(!untold.can_be_sent_again() && untold.body().is_none());
    assert_eq!(memory.0.get(), 0);
}

#[test]
fn nothing_is_kept_where_the_worker_keeps_enough() {
    let memory = Memory::default();
    assert!(memory.take(MOST_KEPT));
    let mut parcel = parcel("hello", 64, &memory);
    assert_eq!(read(&mut parcel.body().unwrap()).0, "hello");
    assert!(!parcel.can_be_sent_again());
    assert_eq!(memory.0.get(), MOST_KEPT);
}

#[test]
fn an_attempt_that_was_given_up_takes_nothing_away_from_the_next() {
    let mut parcel = parcel("hello", 64, &Memory::default());
    let (mut first, mut second) = (parcel.body().unwrap(), parcel.body().unwrap());
    assert_eq!(read(&mut first), (String::new(), None, true));
    assert_eq!(read(&mut second), ("hello".into(), None, false));
}

#[test]
fn an_answer_before_the_end_loses_nothing_and_keeps_nothing_more() {
    let memory = Memory::default();
    let mut parcel = parcel("hello", 64, &memory);
    let mut body = parcel.body().unwrap();
    drop(parcel);
    assert_eq!(read(&mut body), ("hello".into(), None, false));
    assert_eq!(memory.0.get(), 0);
}

#[test]
fn what_is_not_to_be_kept_goes_through_as_it_is() {
    let mut parcel = Parcel::new(streaming(&["hello"], None), None, &Memory::default());
    let body = parcel.body().unwrap();
    assert!(!parcel.can_be_sent_again());
    parcel.give_back(body);
    assert!(parcel.can_be_sent_again() && !parcel.is_whole());
}
