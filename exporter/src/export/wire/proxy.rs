//! Whether a proxy stands between flowtel and a receiver: the environment's variables and a URL in, the proxy out.
//!
//! As curl has it: `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or the same in lower case, a URL or `host:port`.
//! `NO_PROXY` lists names (with all below them), addresses and networks, and `*` is everything, addresses too.

use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::super::BuildError;

/// The proxy for `url`; `None`: straight.
///
/// # Errors
/// It is one that flowtel can't speak to.
pub(in crate::export) fn of(url: &url::Url) -> Result<Option<Intercept>, BuildError> {
    let no = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    choose(&Matcher::from_env(), &no, url)
}

fn choose(matcher: &Matcher, no: &str, url: &url::Url) -> Result<Option<Intercept>, BuildError> {
    // The matcher asks names alone for it.
    if no.split(',').any(|part| part.trim() == "*") {
        return Ok(None);
    }
    let error = |why: String| BuildError::Proxy { why };
    let host = url.host_str().unwrap_or_default();
    let origin =
        format!("{}://{host}", url.scheme()).parse().map_err(|e: http::uri::InvalidUri| error(e.to_string()))?;
    let Some(proxy) = matcher.intercept(&origin) else { return Ok(None) };
    match proxy.uri().scheme_str() {
        Some("http" | "https") => Ok(Some(proxy)),
        other => Err(error(format!(
            "a proxy by {} can't be used, only by http and https",
            other.unwrap_or("an unknown protocol")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(no: &str, url: &str) -> Option<String> {
        let matcher = Matcher::builder().all("http://proxy.example:3128").no(no).build();
        let url = url::Url::parse(url).expect("a URL");
        choose(&matcher, no, &url).expect("it can be used").map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn a_star_means_everything_addresses_too() {
        let urls =
            ["http://192.0.2.1:4318/v1/logs", "https://[2001:db8::1]:4317", "http://name.example", "http://localhost"];
        for url in urls {
            assert_eq!(chosen("", url).as_deref(), Some("http://proxy.example:3128/"), "{url}");
            assert_eq!(chosen("*", url), None, "{url}");
            assert_eq!(chosen("other.example, * ", url), None, "{url}");
        }
    }

    #[test]
    fn names_addresses_and_networks_are_left_out() {
        for (no, url, straight) in [
            ("name.example", "http://a.name.example:1", true),
            (".name.example", "http://a.name.example:1", true),
            ("name.example", "http://othername.example:1", false),
            ("192.0.2.1", "http://192.0.2.1:4318", true),
            ("192.0.2.0/24", "http://192.0.2.1:4318", true),
            ("192.0.2.2", "http://192.0.2.1:4318", false),
            ("2001:db8::/32", "https://[2001:db8::1]:4317", true),
            ("2001:db8::1", "https://[2001:db8::1]:4317", true),
        ] {
            assert_eq!(chosen(no, url).is_none(), straight, "{no} {url}");
        }
    }

    #[test]
    fn a_proxy_of_another_kind_is_refused_before_anything_starts() {
        let matcher = Matcher::builder().all("socks5://proxy.example:1080").build();
        let url = url::Url::parse("http://receiver.example").expect("a URL");
        let error = choose(&matcher, "", &url).map(drop).expect_err("no SOCKS").to_string();
        assert!(error.contains("socks5"), "{error}");
    }
}
