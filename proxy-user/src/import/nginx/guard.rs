//! What keeps people out: `allow`, `deny`, `auth_basic`, `limit_req`. What isn't understood here opens nothing: it holds
//! entrypoints back.

use toml::Value;

use super::{Directive, Nginx, Scope};
use crate::import::{convert, draft::table_of};

/// Everybody.
pub(super) const ALL: [&str; 2] = ["0.0.0.0/0", "::/0"];

impl<'a> Nginx<'a> {
    /// The middleware that guards what is in this scope.
    pub(super) fn guards(&mut self, scope: &Scope<'a>, entrypoints: &[String]) -> Vec<Value> {
        let mut chain = Vec::new();
        chain.extend(self.by_address(scope, entrypoints));
        chain.extend(self.by_password(scope, entrypoints));
        chain.extend(self.rate(scope, entrypoints));
        for name in [
            "auth_request",
            "auth_jwt",
            "satisfy",
            "limit_except",
            "secure_link",
            "internal",
            "valid_referers",
        ] {
            if let Some(directive) = scope.find(name) {
                let why = match name {
                    "auth_request" => "`forward_auth` does it, with the service and path that are asked",
                    "satisfy" if directive.first() == "all" => continue,
                    _ => "it has no counterpart here",
                };
                self.draft.leave_guard(entrypoints, &directive.place, &directive.to_string(), why);
            }
        }
        chain
    }

    fn by_address(&mut self, scope: &Scope<'a>, entrypoints: &[String]) -> Option<Value> {
        let rules = scope.any_of(&["allow", "deny"]);
        if rules.is_empty() {
            return None;
        }
        let (mut allow, mut deny, mut closed) = (Vec::new(), Vec::new(), false);
        for rule in rules {
            let who = rule.first();
            match (rule.name.as_str(), who) {
                // What comes after it is never asked.
                ("deny", "all") => {
                    closed = true;
                    break;
                }
                ("allow", "all") => break,
                (name, who) => match convert::prefix(who) {
                    Some(prefix) if name == "allow" => allow.push(prefix),
                    Some(prefix) => deny.push(prefix),
                    None => {
                        let why = "only addresses and prefixes can be let in or kept out";
                        self.draft.leave_guard(entrypoints, &rule.place, &rule.to_string(), why);
                    }
                },
            }
        }
        let mut clients = toml::Table::new();
        if closed && allow.is_empty() {
            deny = ALL.map(str::to_owned).to_vec();
        } else if closed {
            clients.insert("allow".into(), strings(&allow));
        }
        if !deny.is_empty() {
            clients.insert("deny".into(), strings(&deny));
        }
        (!clients.is_empty()).then(|| table_of([("clients", clients.into())]).into())
    }

    fn by_password(&mut self, scope: &Scope<'a>, entrypoints: &[String]) -> Option<Value> {
        let realm = scope.find("auth_basic").filter(|realm| realm.first() != "off")?;
        let Some(file) = scope.find("auth_basic_user_file").filter(|file| !file.first().contains('$')) else {
            let why = "no file of users is named that can be read";
            self.draft.leave_guard(entrypoints, &realm.place, &realm.to_string(), why);
            return None;
        };
        let mut basic = table_of([("file", file.first().into())]);
        if !realm.first().contains('$') {
            basic.insert("realm".into(), realm.first().into());
        }
        Some(table_of([("basic_auth", basic.into())]).into())
    }

    fn rate(&mut self, scope: &Scope<'a>, entrypoints: &[String]) -> Option<Value> {
        let limit = scope.find("limit_req")?;
        let argument = |limit: &'a Directive, key: &str| {
            limit.arguments.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let zone = argument(limit, "zone").and_then(|zone| self.zones.get(zone)).copied();
        let written = zone.and_then(|zone| {
            let rate = argument(zone, "rate")?;
            let rate = rate
                .strip_suffix("r/s")
                .map(|count| format!("{count}/s"))
                .or_else(|| Some(format!("{}/m", rate.strip_suffix("r/m")?)))?;
            let by = match zone.first() {
                "$binary_remote_addr" | "$remote_addr" => "client".to_owned(),
                "$server_name" | "$host" | "$request_uri" | "$uri" => "route".to_owned(),
                other => format!("header:{}", other.strip_prefix("$http_")?.replace('_', "-")),
            };
            let mut table = table_of([("rate", rate.into()), ("by", by.into())]);
            if let Some(burst) = argument(limit, "burst").and_then(|burst| burst.parse::<i64>().ok()) {
                table.insert("burst".into(), burst.max(1).into());
            }
            Some(table)
        });
        match written {
            Some(table) => Some(table_of([("rate_limit", table.into())]).into()),
            None => {
                let why = "rates are counted by client, route or header";
                self.draft.leave_guard(entrypoints, &limit.place, &limit.to_string(), why);
                None
            }
        }
    }
}

pub(super) fn strings(items: &[String]) -> Value {
    Value::Array(items.iter().map(|item| Value::from(item.as_str())).collect())
}
