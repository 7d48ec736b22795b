//! The flags that make the plan of keys.

use tower_realtime_auth::Plan;

const HEADING: &str = "Plan of keys made or imported at the start; no flag, no limit";

#[derive(clap::Args)]
pub struct PlanFlags {
    /// How many requests a key may make in a minute, mints and handshakes among them
    #[arg(long, value_name = "N", help_heading = HEADING)]
    requests_per_minute: Option<u32>,

    /// How many sessions it may begin in a minute
    #[arg(long, value_name = "N", help_heading = HEADING)]
    sessions_per_minute: Option<u32>,

    /// How many sessions it may have at once
    #[arg(long, value_name = "N", help_heading = HEADING)]
    max_sessions: Option<u32>,

    /// How many units of usage it has in a month; test keys spend none
    #[arg(long, value_name = "N", help_heading = HEADING)]
    usage_limit: Option<u64>,
}

impl PlanFlags {
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::default();
        if let Some(requests) = self.requests_per_minute {
            plan = plan.with_requests_per_minute(requests);
        }
        if let Some(sessions) = self.sessions_per_minute {
            plan = plan.with_sessions_per_minute(sessions);
        }
        if let Some(sessions) = self.max_sessions {
            plan = plan.with_max_sessions(sessions);
        }
        if let Some(usage) = self.usage_limit {
            plan = plan.with_usage_per_month(usage);
        }
        plan
    }
}

/// What a plan limits, if it limits anything.
pub fn described(plan: &Plan) -> Option<String> {
    let limits = [
        (plan.requests_per_minute().map(u64::from), "requests a minute"),
        (plan.sessions_per_minute().map(u64::from), "new sessions a minute"),
        (plan.max_sessions().map(u64::from), "sessions at once"),
        (plan.usage_per_month(), "units of usage a month, of which test keys spend none"),
    ];
    let limits = limits.into_iter().filter_map(|(limit, of)| Some(format!("{} {of}", limit?)));
    let limits: Vec<_> = limits.collect();
    (!limits.is_empty()).then(|| limits.join(", "))
}
