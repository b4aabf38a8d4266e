with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

users as (

    select * from {{ ref('dim_users') }}

),

impressions as (

    select * from {{ ref('fct_impressions') }}

),

-- The 28 days up to a domain's latest day with any event are its present, the 28 before them its past.
latest_days as (

    select
        domain,
        max(occurred_date) as latest_date

    from interactions
    group by domain

),

interactions_of_periods as (

    select
        interactions.domain,
        latest_days.latest_date,
        latest_days.latest_date - interactions.occurred_date < 28 as is_present,
        interactions.user_id,
        {{ utc_date('users.first_interaction_at') }} = interactions.occurred_date as is_first_day

    from interactions
    inner join latest_days using (domain)
    inner join users using (user_id)
    where latest_days.latest_date - interactions.occurred_date < 56

),

engagement as (

    select
        domain,
        latest_date,
        count(*) filter (where is_present) as interactions,
        count(*) filter (where not is_present) as interactions_before,
        count(distinct user_id) filter (where is_present) as active_users,
        count(distinct user_id) filter (where not is_present) as active_users_before,
        count(distinct user_id) filter (where is_present and is_first_day) as new_users,
        count(distinct user_id) filter (where not is_present and is_first_day) as new_users_before

    from interactions_of_periods
    group by domain, latest_date

),

latest_shown_days as (

    select
        domain,
        max({{ utc_date('shown_at') }}) as latest_date

    from impressions
    group by domain

),

click_through as (

    select
        impressions.domain,
        latest_shown_days.latest_date,
        avg(impressions.is_clicked::integer) filter (
            where latest_shown_days.latest_date - {{ utc_date('impressions.shown_at') }} < 28
        ) as click_through_rate,
        avg(impressions.is_clicked::integer) filter (
            where latest_shown_days.latest_date - {{ utc_date('impressions.shown_at') }} >= 28
        ) as click_through_rate_before

    from impressions
    inner join latest_shown_days using (domain)
    where latest_shown_days.latest_date - {{ utc_date('impressions.shown_at') }} < 56
    group by impressions.domain, latest_shown_days.latest_date

),

daily_outcomes as (

    select * from {{ ref('agg_daily_outcomes') }}

),

latest_outcome_days as (

    select
        domain,
        max(outcome_date) as latest_date

    from daily_outcomes
    group by domain

),

outcomes_of_periods as (

    select
        daily_outcomes.*,
        latest_outcome_days.latest_date,
        latest_outcome_days.latest_date - daily_outcomes.outcome_date < 28 as is_present

    from daily_outcomes
    inner join latest_outcome_days using (domain)
    where latest_outcome_days.latest_date - daily_outcomes.outcome_date < 56

),

outcomes as (

    select
        domain,
        latest_date,
        sum(conversions) filter (where is_present)
        / nullif(sum(impressions) filter (where is_present), 0) as conversion_rate,
        sum(conversions) filter (where not is_present)
        / nullif(sum(impressions) filter (where not is_present), 0) as conversion_rate_before,
        sum(revenue) filter (where is_present) as revenue,
        sum(revenue) filter (where not is_present) as revenue_before

    from outcomes_of_periods
    group by domain, latest_date

),

headlines as (

    select
        domain,
        latest_date,
        'interactions' as headline,
        interactions as value,
        interactions_before as value_before

    from engagement
    union all
    select
        domain,
        latest_date,
        'active_users' as headline,
        active_users as value,
        active_users_before as value_before

    from engagement
    union all
    select
        domain,
        latest_date,
        'new_users' as headline,
        new_users as value,
        new_users_before as value_before

    from engagement
    union all
    select
        domain,
        latest_date,
        'click_through_rate' as headline,
        click_through_rate as value,
        click_through_rate_before as value_before

    from click_through
    union all
    select
        domain,
        latest_date,
        'conversion_rate' as headline,
        conversion_rate as value,
        conversion_rate_before as value_before

    from outcomes
    where conversion_rate is not null
    union all
    select
        domain,
        latest_date,
        'revenue' as headline,
        revenue as value,
        revenue_before as value_before

    from outcomes
    where revenue is not null

)

select
    domain,
    headline,
    latest_date,
    value::double precision as value,
    value_before::double precision as value_before,
    (value / nullif(value_before, 0) - 1)::double precision as change

from headlines
