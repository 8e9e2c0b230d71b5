//! What holds where nothing is written, as it would be written. The reference states the same constants.

pub const BPFFS: &str = "/sys/fs/bpf";
pub const ADMIN: &str = "127.0.0.1:9190";
pub const ADMIN_SOCKET: &str = "/run/weir/admin.sock";
pub const ADMIN_BIND: [&str; 2] = [ADMIN, "unix:/run/weir/admin.sock"];
pub const SHUTDOWN_DELAY: &str = "0s";
pub const GRACE: &str = "30s";
pub const UPGRADE_READY: &str = "30s";
pub const UPGRADE_DRAIN: &str = "1h";
pub const STATE: &str = "/var/lib/weir";
pub const SYN_COOKIES_FROM: &str = "1000/s";
pub const LIST_REFRESH: &str = "12h";
pub const LIST_TIMEOUT: &str = "15s";
pub const LIST_SHRINK_LIMIT: u32 = 50;
pub const LIMIT_FIELDS: u32 = 100;
pub const LIMIT_HEAD: &str = "64KiB";
pub const LIMIT_HEAD_TIME: &str = "10s";
pub const LIMIT_BODY_IDLE: &str = "30s";
pub const LIMIT_STREAM_IDLE: &str = "5m";
pub const LIMIT_KEEP_ALIVE: &str = "75s";
pub const LIMIT_STREAMS: u32 = 128;
pub const LIMIT_CONNECTIONS: u32 = 50_000;
pub const LIMIT_CONNECTIONS_PER_CLIENT: u32 = 1_000;
/// A `source_limit` lets so many come at once, however low its rate.
pub const LEAST_BURST: u32 = 10;
pub const PROXY_TIMEOUT: &str = "5s";
pub const HEALTH_EVERY: &str = "1s";
pub const HEALTH_TIMEOUT: &str = "250ms";
pub const HEALTH_FALL: u32 = 2;
pub const HEALTH_RISE: u32 = 2;
pub const HEALTH_STATUS: &str = "200-399";
pub const EJECT_AFTER: u32 = 5;
pub const EJECT_FOR: &str = "10s";
pub const EJECT_LONGEST: &str = "5m";
pub const EJECT_MOST: &str = "50%";
pub const BREAKER_QUANTILE: &str = "95%";
pub const BREAKER_OVER: &str = "10s";
pub const BREAKER_AT_LEAST: u32 = 20;
pub const BREAKER_OPEN: &str = "5s";
pub const BREAKER_RECOVER: &str = "10s";
pub const PANIC: &str = "0%";
pub const UNACKNOWLEDGED: &str = "30s";
pub const CGROUP: &str = "auto";
pub const NAT_PORTS: &str = "20000-29999";
pub const MAX_FLOWS: u32 = 262_144;
pub const CONNECT: &str = "300ms";
pub const FIRST_BYTE: &str = "60s";
pub const PASSTHROUGH_IDLE: &str = "1h";
pub const RETRY_ATTEMPTS: u32 = 3;
pub const RETRY_WITHIN: &str = "30s";
pub const RETRY_BUFFER: &str = "64KiB";
pub const RETRY_STATUSES: &str = "502-504";
pub const RETRY_BUDGET: &str = "20%";
pub const RETRY_BACKOFF: &str = "25ms";
pub const HEDGE_MOST: &str = "5%";
pub const POOL_WARM: u32 = 0;
pub const POOL_IDLE: u32 = 256;
pub const POOL_IDLE_TIMEOUT: &str = "4s";
pub const RETRY_AFTER: &str = "30s";
pub const ACME_DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
pub const EXPIRY_WARNING: &str = "30d";
pub const ALPN: [&str; 2] = ["h2", "http/1.1"];
pub const HSTS_MAX_AGE: &str = "1y";
pub const REDIRECT_STATUS: u32 = 308;
pub const WEIGHT: u32 = 1;
pub const TIER: u32 = 1;
pub const TIER_SPILL: u32 = 0;
pub const ZONE_SPILL: u32 = 50;
pub const DNS_MIN_TTL: &str = "5s";
pub const DNS_MAX_TTL: &str = "5m";
pub const DNS_TIMEOUT: &str = "2s";
pub const WHEN_ALL_DOWN: &str = "page:maintenance";

pub const MIRROR_SHARE: &str = "100%";
pub const MIRROR_BODY: &str = "64KiB";
pub const MIRROR_AT_ONCE: u32 = 64;
pub const MIRROR_TIMEOUT: &str = "10s";
pub const JUDGE_STEPS: [&str; 5] = ["1", "5", "20", "50", "100"];
pub const JUDGE_EVERY: &str = "10m";
pub const JUDGE_MARGIN_ERRORS: &str = "0.5%";
pub const JUDGE_MARGIN_LATENCY: &str = "20%";
pub const JUDGE_CONFIDENCE: &str = "95%";
pub const JUDGE_MIN_SAMPLES: u32 = 100;

pub const PROVIDER_ORDER: u32 = 100;
pub const PROVIDER_REREAD: &str = "1m";
pub const PROVIDER_EVERY: &str = "30s";
pub const PROVIDER_TIMEOUT: &str = "15s";
pub const DOCKER_ENDPOINT: &str = "unix:///var/run/docker.sock";
pub const PROVIDER_PREFIX: &str = "/weir/";
pub const KUBERNETES_CLASS: &str = "weir";

pub const REALM: &str = "restricted";
pub const FORWARD_AUTH_TIMEOUT: &str = "5s";
pub const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];
pub const COMPRESS_FROM: &str = "1KiB";

/// The pages that always exist: for when no server answers, and for what Weir refuses.
pub const PAGE: &str = "maintenance";
pub const PAGE_HTML: &str = crate::page::MAINTENANCE_HTML;
pub const ERROR_PAGE: &str = "error";
pub const ERROR_PAGE_HTML: &str = crate::page::ERROR_HTML;
pub const PAGE_PATH: &str = "/";
pub const PAGE_TIMEOUT: &str = "300ms";
pub const ZONE: &str = "UTC";

/// The allowlist that always exists.
pub const CLOUDFLARE: &str = "cloudflare";
/// One document with both families: no moment at which one is new and the other old.
pub const CLOUDFLARE_URL: &str = "https://api.cloudflare.com/client/v4/ips";
pub const CLOUDFLARE_JSON: &[&str] = &["/result/ipv4_cidrs", "/result/ipv6_cidrs"];
/// The floor, until a fetch succeeds: <https://www.cloudflare.com/ips/>, unchanged from 2022-10 to 2026-02.
pub const CLOUDFLARE_PREFIXES: &[&str] = &[
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];
pub const REDACTED_HEADERS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];
pub const LOG_SAMPLE: &str = "100%";
pub const LOG_KEEP: u32 = 7;
pub const SYSLOG_TAG: &str = "weir";
pub const TRACE_SAMPLE: &str = "1%";
pub const OTLP_SERVICE: &str = "weir";
pub const OTLP_TIMEOUT: &str = "10s";
pub const PUSH_EVERY: &str = "1m";
