//! A split: each request gets one of several services, by chance and weight, or by the cookie that its visitor got before.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};

use super::{
    Asking, Counting,
    figures::{Failure, Figures},
    sticky::Key,
    through,
};
use crate::{
    access_log::Exchange,
    body::RequestBody,
    cookies,
    service::Service,
    upstream::{attempt::Answer, deliver::Undelivered},
};

#[derive(Debug)]
pub struct Split {
    pub name: Arc<str>,
    pub variants: Box<[Variant]>,
    /// As the configuration has them.
    pub configured: Box<[u32]>,
    weights: ArcSwap<Weights>,
    sticky: Option<Sticky>,
    fall_over: bool,
}

#[derive(Debug)]
pub struct Variant {
    pub service: Arc<Service>,
    /// Of this variant in this split; they outlive reloads.
    pub figures: Arc<Figures>,
}

/// How requests are shared out now. Their sum is never 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    pub each: Box<[u32]>,
    /// They were set at run time.
    pub overridden: bool,
}

#[derive(Debug)]
pub struct Sticky {
    pub cookie: Arc<str>,
    pub key: Arc<Key>,
}

impl Split {
    pub fn new(
        name: Arc<str>,
        variants: Box<[Variant]>,
        configured: Box<[u32]>,
        sticky: Option<Sticky>,
        fall_over: bool,
    ) -> Self {
        let weights = ArcSwap::from_pointee(Weights { each: configured.clone(), overridden: false });
        Self { name, variants, configured, weights, sticky, fall_over }
    }

    pub fn weights(&self) -> Arc<Weights> {
        self.weights.load_full()
    }

    /// Other weights than the configured ones, or none: then those. Requests follow at once.
    pub fn set(&self, weights: Option<Box<[u32]>>) {
        let overridden = weights.is_some();
        let each = weights.unwrap_or_else(|| self.configured.clone());
        self.weights.store(Arc::new(Weights { each, overridden }));
    }

    /// Whether what a variant can't answer goes to another one.
    pub fn falls_over(&self) -> bool {
        self.fall_over
    }

    /// By its name.
    pub fn variant(&self, name: &str) -> Option<&Variant> {
        self.variants.iter().find(|variant| *variant.service.name == *name)
    }

    /// Whether somebody who may get requests can answer them.
    pub fn can_answer(&self) -> bool {
        let weights = self.weights.load();
        self.variants.iter().zip(&weights.each).any(|(one, weight)| *weight > 0 && one.service.can_answer())
    }

    pub(super) async fn deliver<'s>(
        &'s self,
        asking: Asking<'_>,
        asked: &mut &'s Arc<Service>,
        mut body: RequestBody,
        unspent: &mut Option<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<Answer, Undelivered> {
        let weights = self.weights();
        let held = self.held(&asking.head.headers).filter(|index| weights.each[*index] > 0);
        let by_weight =
            |may: &dyn Fn(usize) -> bool| pick(&weights.each, may, |total| fastrand::u32(..total));
        let mut tried: u64 = 0;
        let another = |tried: u64| {
            let well = |index: usize| tried >> index & 1 == 0 && self.variants[index].service.can_answer();
            if self.fall_over { by_weight(&well) } else { None }
        };
        let mut next = held.or_else(|| by_weight(&|_| true));
        while let Some(index) = next {
            tried |= 1 << index;
            let variant = &self.variants[index];
            if !variant.service.can_answer()
                && let Some(other) = another(tried)
            {
                variant.figures.failed(Failure::Connection);
                next = Some(other);
                continue;
            }
            let counting = Counting::begin(&variant.figures, asking.by);
            let outcome = through(asking, &variant.service, asked, body, unspent, exchange).await;
            counting.end(&outcome);
            match outcome {
                Ok(mut answer) => {
                    // Who is held stays with his own, also when somebody else had to answer for once.
                    if let (Some(sticky), None) = (&self.sticky, held) {
                        let cookie = sticky.cookie(&self.name, &variant.service.name, &asking.head.headers);
                        answer.head.headers.extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
                    }
                    return Ok(answer);
                }
                Err(fault) => match (unspent.take(), another(tried)) {
                    (Some(back), Some(other)) => (body, next) = (back, Some(other)),
                    (back, _) => {
                        *unspent = back;
                        return Err(fault);
                    }
                },
            }
        }
        *unspent = Some(body);
        Err(Undelivered::NoServer)
    }

    /// The variant that the visitor's cookie names.
    fn held(&self, headers: &HeaderMap) -> Option<usize> {
        let sticky = self.sticky.as_ref()?;
        // A browser sends one, or one for each path; each costs a signature.
        let mut known = cookies::values(headers, &sticky.cookie)
            .take(4)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .filter_map(|value| sticky.key.verify(&self.name, value))
            .filter_map(|name| self.variants.iter().position(|variant| *variant.service.name == *name));
        known.next()
    }
}

impl Sticky {
    fn cookie(&self, split: &str, variant: &str, request: &HeaderMap) -> Option<HeaderValue> {
        let secure = request.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let secure = if secure { "; Secure" } else { "" };
        let (name, value) = (&self.cookie, self.key.sign(split, variant));
        HeaderValue::try_from(format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}")).ok()
    }
}

/// One of those that `may` be, by its weight. `roll` gives a number below its argument.
pub fn pick(weights: &[u32], may: &dyn Fn(usize) -> bool, roll: impl FnOnce(u32) -> u32) -> Option<usize> {
    // Asked once each: health may change between two looks.
    let mut among: u64 = 0;
    let mut total = 0;
    for (index, weight) in weights.iter().enumerate() {
        if *weight > 0 && may(index) {
            among |= 1 << index;
            total += weight;
        }
    }
    let mut left = if total > 0 { roll(total) } else { return None };
    let chosen = weights.iter().enumerate().filter(|(index, _)| among >> index & 1 == 1);
    for (index, weight) in chosen {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return Some(index),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_can_be_rolled_belongs_to_a_variant_and_each_has_its_share() {
        let weights = [20, 0, 80, 5];
        let may = |index| index != 3;
        let mut counts = [0; 4];
        for rolled in 0..100 {
            counts[pick(&weights, &may, |total| {
                assert_eq!(total, 100);
                rolled
            })
            .unwrap()] += 1;
        }
        assert_eq!(counts, [20, 0, 80, 0]);
    }

    #[test]
    fn where_nobody_may_nobody_is_picked() {
        assert_eq!(pick(&[1, 2], &|_| false, |_| unreachable!()), None);
        assert_eq!(pick(&[0, 0], &|_| true, |_| unreachable!()), None);
        assert_eq!(pick(&[], &|_| true, |_| unreachable!()), None);
    }
}
