//! One order, from the account to the certificate.

use std::{future::Future, sync::Arc, time::Duration};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{self, sign::any_supported_type},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{ALPN, Board, Hanging, client::Client, store::Store};
use crate::config::model::{Acme, AcmeChallenge};

/// How long the authority may take to look at a challenge, or to sign.
const PATIENCE: Duration = Duration::from_secs(90);

/// A signed chain, and its key.
pub struct Ordered {
    pub chain: String,
    pub key: String,
}

/// What the authority will ask for.
#[derive(Debug, Clone, Copy)]
pub enum Challenge<'a> {
    Http { token: &'a str, answer: &'a str },
    Alpn { name: &'a str, digest: &'a [u8] },
}

/// Who orders: by which account, and who answers the authority.
pub trait Desk: Sync {
    /// The account that is known. `None`: one is to be made.
    fn account(&self) -> impl Future<Output = Result<Option<AccountCredentials>, String>> + Send;

    fn keep_account(&self, account: &AccountCredentials) -> impl Future<Output = Result<(), String>> + Send;

    /// The authority doesn't know it any more.
    fn forget_account(&self) -> impl Future<Output = ()> + Send;

    /// Has the challenge answered, by whomever the authority may ask, from the moment in which this is done.
    fn hang(&self, challenge: Challenge<'_>) -> impl Future<Output = Result<Hanging, String>> + Send;
}

/// A host by itself.
pub struct Alone<'a> {
    pub store: &'a Store,
    pub board: &'a Arc<Board>,
}

/// Orders a certificate for one name. Challenges hang on the board until this is over.
///
/// # Errors
/// A sentence that says what the authority objects to.
pub async fn order(acme: &Acme, desk: &impl Desk, name: &str) -> Result<Ordered, String> {
    match attempt(acme, desk, name).await {
        Err(Error::Api(problem)) if problem.r#type.as_deref().is_some_and(is_about_the_account) => {
            desk.forget_account().await;
            Err(format!(
                "the authority doesn't know the account any more ({problem}); the next attempt makes another"
            ))
        }
        outcome => outcome.map_err(|error| error.to_string()),
    }
}

fn is_about_the_account(problem: &str) -> bool {
    problem.ends_with(":accountDoesNotExist") || problem.ends_with(":unauthorizedAccount")
}

async fn attempt(acme: &Acme, desk: &impl Desk, name: &str) -> Result<Ordered, Error> {
    let account = account(acme, desk).await?;
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let hanging = prove(&mut order, acme.challenge, desk).await?;
    let policy = RetryPolicy::new().timeout(PATIENCE);
    let status = order.poll_ready(&policy).await?;
    drop(hanging);
    if !matches!(status, OrderStatus::Ready | OrderStatus::Valid) {
        return Err(objection(&mut order).await);
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&policy).await?;
    Ok(Ordered { chain, key })
}

async fn account(acme: &Acme, desk: &impl Desk) -> Result<Account, Error> {
    let client = Box::new(Client { authorities: acme.authorities.clone() });
    if let Some(known) = desk.account().await.map_err(other)? {
        return Account::builder_with_http(client).from_credentials(known).await;
    }
    let contact: Vec<_> = acme.contact.iter().map(|address| format!("mailto:{address}")).collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) =
        Account::builder_with_http(client).create(&new, acme.directory.to_string(), None).await?;
    desk.keep_account(&credentials).await.map_err(other)?;
    Ok(account)
}

/// Hangs up the challenges of all that is not proved yet, and tells the authority to look.
async fn prove(order: &mut Order, kind: AcmeChallenge, desk: &impl Desk) -> Result<Vec<Hanging>, Error> {
    let mut hanging = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            // Proved for an earlier order.
            AuthorizationStatus::Valid => continue,
            other => return Err(Error::Other(format!("an authorization is {other:?}").into())),
        }
        let wanted = match kind {
            AcmeChallenge::Http01 => ChallengeType::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        };
        let mut challenge = authorization
            .challenge(wanted)
            .ok_or(Error::Str("the authority doesn't offer this kind of challenge"))?;
        let authorized = challenge.key_authorization();
        let (name, digest) = (challenge.identifier().to_string(), authorized.digest());
        let asked = match kind {
            AcmeChallenge::Http01 => Challenge::Http { token: &challenge.token, answer: authorized.as_str() },
            AcmeChallenge::TlsAlpn01 => Challenge::Alpn { name: &name, digest: digest.as_ref() },
        };
        hanging.push(desk.hang(asked).await.map_err(other)?);
        challenge.set_ready().await?;
    }
    Ok(hanging)
}

fn other(why: String) -> Error {
    Error::Other(why.into())
}

// === impl Alone ===

impl Desk for Alone<'_> {
    async fn account(&self) -> Result<Option<AccountCredentials>, String> {
        Ok(self.store.load_account())
    }

    async fn keep_account(&self, account: &AccountCredentials) -> Result<(), String> {
        self.store.save_account(account)
    }

    async fn forget_account(&self) {
        self.store.forget_account();
    }

    async fn hang(&self, challenge: Challenge<'_>) -> Result<Hanging, String> {
        challenge.hang_on(self.board)
    }
}

// === impl Challenge ===

impl Challenge<'_> {
    /// Has this host answer it.
    ///
    /// # Errors
    /// When no certificate can be made that answers it.
    pub fn hang_on(self, board: &Arc<Board>) -> Result<Hanging, String> {
        match self {
            Self::Http { token, answer } => Ok(board.hang_http(token, answer)),
            Self::Alpn { name, digest } => {
                let config = answering(name, digest).map_err(|fault| fault.to_string())?;
                Ok(board.hang_alpn(name, Arc::new(config)))
            }
        }
    }
}

/// TLS that answers the authority: a certificate for the name, signed by itself, with the digest in it (RFC 8737).
fn answering(name: &str, digest: &[u8]) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let own = params.self_signed(&key)?;
    let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))?;
    // Taken as it is: the checks that go with `with_single_cert` don't know the critical extension, and refuse it.
    let certified = CertifiedKey::new(vec![own.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// What the authority found when it looked.
async fn objection(order: &mut Order) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone())
        {
            return Error::Api(problem);
        }
    }
    Error::Str("the authority refuses the order, and doesn't say why")
}
