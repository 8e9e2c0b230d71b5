//! A user name and a password (RFC 7617).
//!
//! Checking a password is meant to be slow, so it is done off the worker, a few at a time; what was right is remembered by
//! each worker for a while, as a keyed hash. A name that doesn't exist takes as long as one that does.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc},
};
use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::Semaphore;

use super::{Halt, Passage, headers::forget};
use crate::config::model;

/// A right password is asked for again after so long.
const REMEMBERED: Duration = Duration::from_secs(300);
/// So many a worker.
const MOST_REMEMBERED: usize = 4096;
/// So many may wait for their turn to be checked; the rest is sent away, or a flood of guesses would fill the memory.
const MOST_WAITING: usize = 64;

#[derive(Debug)]
pub struct BasicAuth {
    users: HashMap<Arc<str>, Secret>,
    /// For names that don't exist.
    decoy: Secret,
    challenge: HeaderValue,
    user_header: Option<HeaderName>,
    pass_on: bool,
}

/// `NAME:HASH`
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: Arc<str>,
    secret: Secret,
}

/// What a password is checked against. Never shown.
#[derive(Clone, PartialEq, Eq)]
enum Secret {
    Bcrypt(Arc<str>),
    Argon2(Arc<str>),
}

/// A hash of `password` for a user's line: Argon2id, as OWASP recommends it.
///
/// # Errors
/// When the system gives no random bytes.
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    Argon2::default().hash_password(password).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

// === impl User ===

impl User {
    /// # Errors
    /// A sentence about what is wrong, without the secret.
    pub fn parse(line: &str) -> Result<Self, String> {
        let Some((name, hash)) = line.split_once(':') else {
            return Err("it is not written `NAME:HASH`".to_owned());
        };
        if name.is_empty() || name.chars().any(char::is_control) || HeaderValue::from_str(name).is_err() {
            return Err("the name is not made of printable characters".to_owned());
        }
        Ok(Self { name: name.into(), secret: Secret::parse(hash)? })
    }
}

/// With a fingerprint of the secret, so that a changed one can be told.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({:?}, {:?})", self.name, self.secret)
    }
}

// === impl Secret ===

impl Secret {
    fn parse(hash: &str) -> Result<Self, String> {
        if hash.starts_with("$argon2") {
            let parsed = phc::PasswordHash::new(hash)
                .map_err(|error| format!("its Argon2 hash is broken: {error}"))?;
            argon2::Params::try_from(&parsed)
                .map_err(|error| format!("its Argon2 hash can't be used: {error}"))?;
            return if parsed.salt.is_some() && parsed.hash.is_some() {
                Ok(Self::Argon2(hash.into()))
            } else {
                Err("its Argon2 hash has no salt or no hash".to_owned())
            };
        }
        if ["$2a$", "$2b$", "$2y$", "$2x$"].iter().any(|kind| hash.starts_with(kind)) {
            return match hash.parse::<bcrypt::HashParts>() {
                // Each step doubles the time; 17 takes many seconds.
                Ok(parts) if (4..=17).contains(&parts.get_cost()) => Ok(Self::Bcrypt(hash.into())),
                Ok(_) => Err("its bcrypt hash has a cost out of range (4 to 17)".to_owned()),
                Err(_) => Err("its bcrypt hash is broken".to_owned()),
            };
        }
        Err("its hash is neither bcrypt's nor Argon2's".to_owned())
    }

    fn text(&self) -> &str {
        match self {
            Self::Bcrypt(hash) | Self::Argon2(hash) => hash,
        }
    }

    /// Slow, on purpose. Compares in constant time.
    fn is_for(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => phc::PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        self.text().hash(&mut hasher);
        write!(f, "{:08x}", hasher.finish() as u32)
    }
}

// === impl BasicAuth ===

impl BasicAuth {
    pub fn new(settings: &model::BasicAuth) -> Self {
        let users: HashMap<_, _> =
            settings.users.iter().map(|user| (user.name.clone(), user.secret.clone())).collect();
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", settings.realm);
        Self {
            // A valid configuration has at least one.
            decoy: settings.users.first().map_or(Secret::Bcrypt("".into()), |user| user.secret.clone()),
            users,
            challenge: HeaderValue::from_str(&challenge).unwrap_or(HeaderValue::from_static("Basic")),
            user_header: settings.user_header.clone(),
            pass_on: settings.pass_on,
        }
    }

    pub async fn admit(&self, passage: &mut Passage<'_>) -> Result<(), Halt> {
        let Some((name, password)) = credentials(&passage.head.headers) else {
            return Err(self.denied());
        };
        let known = self.users.get(&*name);
        let seal = known.map(|secret| seal(secret, &name, &password));
        if !seal.is_some_and(|seal| is_remembered(&seal)) {
            let secret = known.unwrap_or(&self.decoy).clone();
            let right = check(secret, password).await?;
            match seal.filter(|_| right) {
                Some(seal) => remember(seal),
                None => return Err(self.denied()),
            }
        }
        let headers = &mut passage.head.headers;
        if !self.pass_on {
            headers.remove(header::AUTHORIZATION);
        }
        if let Some(field) = &self.user_header {
            forget(headers, field);
            if let Ok(name) = HeaderValue::from_str(&name) {
                headers.insert(field, name);
            }
        }
        Ok(())
    }

    fn denied(&self) -> Halt {
        Halt::Unauthorized { challenge: self.challenge.clone() }
    }
}

/// Name and password of a request that has them, once.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else { return None };
    let (scheme, encoded) = given.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let name = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((name, decoded[colon + 1..].to_vec()))
}

/// Checks a password off this thread.
async fn check(secret: Secret, password: Vec<u8>) -> Result<bool, Halt> {
    static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
        // Half of the cores go on serving those who need no check.
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Semaphore::new((cores / 2).max(1))
    });
    let _waiting = Waiting::begin().ok_or(Halt::Busy)?;
    let turn = TURNS.acquire().await.map_err(|_| Halt::Busy)?;
    // The turn goes with the work: a client that leaves doesn't make room for another check beside it.
    let checked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        secret.is_for(&password)
    });
    checked.await.map_err(|_| Halt::Busy)
}

/// A place in the line of those who wait to be checked.
struct Waiting;

static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Waiting {
    fn begin() -> Option<Self> {
        let more = |waiting: usize| (waiting < MOST_WAITING).then_some(waiting + 1);
        WAITING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

// === what was right before ===

type Seal = [u8; 32];

thread_local! {
    static RIGHT: RefCell<HashMap<Seal, Instant>> = RefCell::default();
}

/// Stands for these credentials and this secret, and gives none of them away. A changed password has another.
fn seal(secret: &Secret, name: &str, password: &[u8]) -> Seal {
    static KEY: LazyLock<Option<hmac::Key>> =
        LazyLock::new(|| hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok());
    let Some(key) = &*KEY else { return [0; 32] };
    let mut context = hmac::Context::with_key(key);
    // Neither a hash nor a name holds NUL, so two different ones never look the same.
    for part in [secret.text().as_bytes(), b"\0", name.as_bytes(), b"\0", password] {
        context.update(part);
    }
    context.sign().as_ref().try_into().unwrap_or_default()
}

fn is_remembered(seal: &Seal) -> bool {
    // All zeros: there was no key to seal with.
    *seal != [0; 32]
        && RIGHT.with_borrow(|right| right.get(seal).is_some_and(|since| since.elapsed() < REMEMBERED))
}

fn remember(seal: Seal) {
    RIGHT.with_borrow_mut(|right| {
        if right.len() >= MOST_REMEMBERED {
            right.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        if right.len() < MOST_REMEMBERED {
            right.insert(seal, Instant::now());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `htpasswd -nbB -C 4`-like: the lowest cost, for a quick test.
    fn bcrypt_of(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    #[test]
    fn only_slow_hashes_are_taken() {
        let argon2 = hash_password(b"secret").unwrap();
        for (line, because) in [
            (format!("alice:{argon2}"), None),
            (format!("alice:{}", bcrypt_of("secret")), None),
            (format!("alice:{}", bcrypt_of("secret").replace("$2b$", "$2y$")), None),
            ("alice".to_owned(), Some("not written")),
            (format!(":{argon2}"), Some("the name")),
            ("alice:$apr1$x$y".to_owned(), Some("neither")),
            ("alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=".to_owned(), Some("neither")),
            ("alice:secret".to_owned(), Some("neither")),
            ("alice:$2b$04$short".to_owned(), Some("broken")),
            ("alice:$argon2id$v=19$m=19456,t=2,p=1".to_owned(), Some("no salt")),
            ("alice:$argon2id$nonsense".to_owned(), Some("broken")),
        ] {
            match (User::parse(&line), because) {
                (Ok(user), None) => {
                    assert!(user.secret.is_for(b"secret") && !user.secret.is_for(b"Secret"), "{line}");
                    assert!(!format!("{user:?}").contains('$'), "secrets are not shown");
                }
                (Err(why), Some(because)) => assert!(why.contains(because), "{line}: {why}"),
                (other, _) => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn credentials_are_read_once_and_whole() {
        let given = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            credentials(&headers)
        };
        // alice:a:b
        assert_eq!(given(&["Basic YWxpY2U6YTpi"]), Some(("alice".into(), b"a:b".to_vec())));
        assert_eq!(given(&["basic YWxpY2U6YTpi"]), Some(("alice".into(), b"a:b".to_vec())));
        for none in [
            &["Bearer x"][..],
            &["Basic !"],
            &["Basic"],
            &["Basic YWxpY2U="],
            &[],
            &["Basic YTpi", "Basic YTpi"],
        ] {
            assert_eq!(given(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_one_name_one_password_and_one_hash() {
        let (one, other) = (Secret::Bcrypt("x".into()), Secret::Bcrypt("y".into()));
        remember(seal(&one, "alice", b"a"));
        assert!(is_remembered(&seal(&one, "alice", b"a")));
        for (secret, name, password) in [(&one, "alice", "b"), (&one, "bob", "a"), (&other, "alice", "a")] {
            assert!(!is_remembered(&seal(secret, name, password.as_bytes())));
        }
    }
}
