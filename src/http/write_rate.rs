//! Limits how many writes an address may send in a minute.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    Error, ResponseError,
    body::{EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};

use super::error_pages::AppError;
use crate::config::TrustedProxies;

const MINUTE: Duration = Duration::from_secs(60);

/// The writes of the current minute, by address. All workers share them.
#[derive(Debug)]
pub(crate) struct WriteRates {
    /// 0 is no limit.
    max: u32,
    minute: Mutex<Minute>,
}

#[derive(Debug)]
struct Minute {
    start: Instant,
    writes: HashMap<IpAddr, u32>,
}

impl WriteRates {
    pub(crate) fn new(max: u32) -> Self {
        Self { max, minute: Mutex::new(Minute { start: Instant::now(), writes: HashMap::new() }) }
    }

    /// Counts a write. The error is the time until the address may write again.
    fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.max == 0 || address.is_loopback() {
            return Ok(());
        }
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(minute.start) >= MINUTE {
            *minute = Minute { start: now, writes: HashMap::new() };
        }
        let end = minute.start + MINUTE;
        let writes = minute.writes.entry(network(address)).or_default();
        if *writes >= self.max {
            return Err(end.duration_since(now));
        }
        *writes += 1;
        Ok(())
    }
}

/// Returns the address of an IPv4 client, and the network of an IPv6 client: it can choose any address
/// in it (RFC 4291, section 2.5.4).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

/// A middleware that answers 429 to writes of an address that has sent too many.
pub(crate) async fn refuse_too_many<B: MessageBody>(
    req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if !req.method().is_safe()
        && let Some(rates) = req.app_data::<Data<WriteRates>>()
        && let Some(proxies) = req.app_data::<Data<TrustedProxies>>()
        && let Some(address) = proxies.client(req.request())
        && let Err(wait) = rates.admit(address, Instant::now())
    {
        let refusal = AppError::TooManyRequests { wait }.error_response();
        return Ok(req.into_response(refusal).map_into_right_body());
    }
    next.call(req).await.map(ServiceResponse::map_into_left_body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_may_write_again_in_the_next_minute() {
        let (rates, now) = (WriteRates::new(2), Instant::now());
        let visitor = address("203.0.113.7");
        assert_eq!(rates.admit(visitor, now), Ok(()));
        assert_eq!(rates.admit(visitor, now), Ok(()));
        assert!(rates.admit(visitor, now).is_err_and(|wait| wait <= MINUTE));
        assert_eq!(rates.admit(address("203.0.113.8"), now), Ok(()));
        assert_eq!(rates.admit(visitor, now + MINUTE), Ok(()));
    }

    #[test]
    fn the_addresses_of_a_network_of_ipv6_count_as_one() {
        let (rates, now) = (WriteRates::new(1), Instant::now());
        assert_eq!(rates.admit(address("2001:db8::1"), now), Ok(()));
        assert!(rates.admit(address("2001:db8::2:1"), now).is_err());
        assert_eq!(rates.admit(address("2001:db8:0:1::1"), now), Ok(()));
    }

    #[test]
    fn loopback_addresses_and_a_limit_of_0_are_not_limited() {
        let now = Instant::now();
        for (max, visitor) in [(1, "127.0.0.1"), (1, "::1"), (0, "203.0.113.7")] {
            let rates = WriteRates::new(max);
            assert!((0..10).all(|_| rates.admit(address(visitor), now).is_ok()), "{visitor}");
        }
    }
}
