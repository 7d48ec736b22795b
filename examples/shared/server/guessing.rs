//! The flags that limit wrong keys.

use std::{net::SocketAddr, num::NonZeroUsize, str::FromStr};

use axum::extract::ConnectInfo;
use tower_realtime_auth::{ClientAddress, ConfigError, FailureLimit, RealtimeAuthLayer};

#[derive(clap::Args)]
pub struct Guessing {
    /// How many wrong keys a client's address may present in a minute; further ones are answered
    /// with 429. Without this, any number
    #[arg(long, value_name = "N", requires = "client_address")]
    wrong_keys_per_minute: Option<u32>,

    /// Where the address of a client stands: connection, or forwarded:N for the Nth entry of
    /// X-Forwarded-For from the right, if N proxies stand in front
    #[arg(long, value_name = "WHERE", requires = "wrong_keys_per_minute")]
    client_address: Option<AddressPlace>,
}

impl Guessing {
    pub fn limit<S>(
        self,
        layer: RealtimeAuthLayer<S>,
    ) -> Result<RealtimeAuthLayer<S>, ConfigError> {
        let Some(per_minute) = self.wrong_keys_per_minute else { return Ok(layer) };
        let limit = FailureLimit::new(per_minute);
        layer.with_failure_limit(match self.client_address {
            Some(AddressPlace(address)) => limit.with_address(address),
            None => limit,
        })
    }
}

#[derive(Clone)]
struct AddressPlace(ClientAddress);

impl FromStr for AddressPlace {
    type Err = String;

    fn from_str(place: &str) -> Result<Self, String> {
        if place == "connection" {
            return Ok(Self(ClientAddress::connection(|extensions| {
                extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
            })));
        }
        let nth = place.strip_prefix("forwarded:").and_then(|nth| nth.parse::<NonZeroUsize>().ok());
        let nth = nth.ok_or("use connection, or forwarded:N with N from 1")?;
        Ok(Self(ClientAddress::forwarded_for(nth)))
    }
}
