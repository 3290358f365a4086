//! What a request is to meet the same backend by.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use http::{HeaderMap, HeaderValue, header::COOKIE};

use super::{Engine, serve::Marks, view::Service};
use crate::domain::http::policy::Balance;

impl Engine {
    /// What the backend is chosen by; the client is given a cookie if it is to have one.
    pub(super) fn key(
        &self,
        service: &Service,
        headers: &HeaderMap,
        marks: &mut Marks,
    ) -> Option<u64> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        match &service.policy.balance {
            Balance::PeakEwma => None,
            Balance::Header(name) => {
                let value = headers.get(name)?;
                Some(hasher.hash_one(value.as_bytes()))
            }
            Balance::Cookie(name) => {
                if let Some(value) = cookie(headers, name) {
                    return Some(hasher.hash_one(value.as_bytes()));
                }
                let value = format!("{:016x}", self.random());
                let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax");
                marks.cookie = HeaderValue::try_from(cookie).ok();
                Some(hasher.hash_one(value.as_bytes()))
            }
        }
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let values = headers.get_all(COOKIE).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value)
}
