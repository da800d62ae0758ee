//! The calls about the brake.

use std::time::Duration;

use convoy_client::proto;

use super::{Api, error::Problem};
use crate::{
    model::{BrakeScope, Invalid, wire},
    registry::brake::{Braked, Group, Release},
};

impl Api {
    pub fn list_brakes(&self) -> proto::ListBrakesResponse {
        let braking = self.registry.braking();
        let active = |braked: &Braked| {
            let name = match &braked.group {
                Group::Intake => String::new(),
                group => group.to_string(),
            };
            proto::ActiveBrake {
                scope: wire::brake_scope(braked.group.scope()).into(),
                name,
                age: Some(wire::duration(Duration::from_millis(
                    self.registry.handled_ms().saturating_sub(braked.since_ms),
                ))),
                overdue: count(braked.overdue),
                of: count(braked.of),
                kept: count(braked.leases),
            }
        };
        proto::ListBrakesResponse {
            brakes: braking.groups.iter().map(active).collect(),
            leases: count(braking.leases),
            overdue: count(braking.overdue),
        }
    }

    pub async fn release_brake(
        &self,
        request: proto::ReleaseBrakeRequest,
    ) -> Result<proto::ReleaseBrakeResponse, Problem> {
        let outcome = self.registry.release_brake(release(&request)?).await?;
        Ok(proto::ReleaseBrakeResponse { leases: count(outcome.released) })
    }
}

fn release(request: &proto::ReleaseBrakeRequest) -> Result<Release, Invalid> {
    let scope = match proto::BrakeScope::try_from(request.scope) {
        Ok(proto::BrakeScope::Unspecified) if request.name.is_empty() => return Ok(Release::All),
        Ok(proto::BrakeScope::Service) => BrakeScope::Service,
        Ok(proto::BrakeScope::Zone) => BrakeScope::Zone,
        Ok(proto::BrakeScope::Intake) => BrakeScope::Intake,
        _ => return Err(Invalid::new("scope", request.scope, "one of service, zone, intake")),
    };
    Ok(match request.name.as_str() {
        "" => Release::Scope(scope),
        _ if scope == BrakeScope::Intake => {
            return Err(Invalid::new("name", &request.name, "there is one intake, without a name"));
        }
        name => Release::Named(scope, name.into()),
    })
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
