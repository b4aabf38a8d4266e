-- Every event is in exactly one session, every user of a domain in exactly one of its cohorts, and all of a cohort is
-- active at age 0.
with

expected as (

    select
        domain,
        count(*) as events,
        count(distinct user_id) as users

    from {{ ref('fct_interactions') }}
    group by domain

),

sessions as (

    select
        domain,
        sum(events) as events

    from {{ ref('agg_sessions') }}
    group by domain

),

cohorts as (

    select
        domain,
        sum(cohort_users) as users,
        sum(active_users) as active_users

    from {{ ref('agg_cohort_retention') }}
    where age_months = 0
    group by domain

)

select *

from expected
full join sessions using (domain)
full join cohorts using (domain)
where
    expected.events is distinct from sessions.events
    or expected.users is distinct from cohorts.users
    or cohorts.users is distinct from cohorts.active_users
