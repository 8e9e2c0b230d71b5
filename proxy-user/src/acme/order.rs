//! One order, from the account to the certificate.

use std::{sync::Arc, time::Duration};

use instant_acme::{
    Account, AuthorizationStatus, ChallengeHandle, ChallengeType, Error, Identifier, NewAccount, NewOrder,
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

/// Orders a certificate for one name. Challenges hang on the board until this is over.
///
/// # Errors
/// A sentence that says what the authority objects to.
pub async fn order(acme: &Acme, store: &Store, board: &Arc<Board>, name: &str) -> Result<Ordered, String> {
    match attempt(acme, store, board, name).await {
        Err(Error::Api(problem)) if problem.r#type.as_deref().is_some_and(is_about_the_account) => {
            store.forget_account();
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

async fn attempt(acme: &Acme, store: &Store, board: &Arc<Board>, name: &str) -> Result<Ordered, Error> {
    let account = account(acme, store).await?;
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let hanging = prove(&mut order, acme.challenge, board).await?;
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

async fn account(acme: &Acme, store: &Store) -> Result<Account, Error> {
    let client = Box::new(Client { authorities: acme.authorities.clone() });
    if let Some(known) = store.load_account() {
        return Account::builder_with_http(client).from_credentials(known).await;
    }
    let contact: Vec<_> = acme.contact.iter().map(|address| format!("mailto:{address}")).collect();
    let contact: Vec<_> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) =
        Account::builder_with_http(client).create(&new, acme.directory.to_string(), None).await?;
    store.save_account(&credentials).map_err(|why| Error::Other(why.into()))?;
    Ok(account)
}

/// Hangs up the challenges of all that is not proved yet, and tells the authority to look.
async fn prove(order: &mut Order, kind: AcmeChallenge, board: &Arc<Board>) -> Result<Vec<Hanging>, Error> {
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
        hanging.push(match kind {
            AcmeChallenge::Http01 => {
                board.hang_http(&challenge.token, challenge.key_authorization().as_str())
            }
            AcmeChallenge::TlsAlpn01 => hang_alpn(&challenge, board)?,
        });
        challenge.set_ready().await?;
    }
    Ok(hanging)
}

fn hang_alpn(challenge: &ChallengeHandle<'_>, board: &Arc<Board>) -> Result<Hanging, Error> {
    let name = challenge.identifier().to_string();
    let config = answering(&name, challenge.key_authorization().digest().as_ref());
    Ok(board.hang_alpn(&name, Arc::new(config.map_err(Error::Other)?)))
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
