//! Good configurations: what they become.

use proxy_user::config::{
    self,
    model::{AdminAddr, KernelMode, WhenAllDown},
};

#[test]
fn the_embedded_default_is_valid_and_loopback_only() {
    let loaded = config::embedded_default();
    assert!(loaded.warnings.is_empty(), "{}", loaded.report());
    assert!(loaded.files.is_empty());
    let config = loaded.config;
    assert_eq!(config.entrypoints[0].bind, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.services[0].servers, ["127.0.0.1:8081".parse().unwrap()]);
    assert_eq!(config.admin.bind, [AdminAddr::Tcp("127.0.0.1:9190".parse().unwrap())]);
    assert_eq!(config.kernel.mode, KernelMode::Auto);
    assert!(config.kernel.interfaces.is_empty());
    let WhenAllDown::Page(page) = config.services[0].when_all_down else { panic!("a page") };
    assert!(config.pages[page.0].html.starts_with(b"<!doctype html>"));
}
