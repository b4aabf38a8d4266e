{# A view: what it counts is written after this build. #}
{{ config(materialized='view', post_hook=[]) }}

with

runs as (

    select * from {{ source('monitoring', 'pipeline_runs') }}

),

outcomes as (

    select * from {{ source('monitoring', 'outcomes') }}
    where station != 'experiments'

),

funnel as (

    select * from {{ ref('agg_recommendation_funnel') }}

),

days as (

    select
        'pipeline runs succeed' as objective,
        0.95::numeric as target,
        run_date as observed_date,
        count(*) filter (where state = 'success') as good,
        count(*) as total

    from runs
    group by run_date
    union all
    select
        'checks do not fail' as objective,
        0.99::numeric as target,
        outcome_date as observed_date,
        count(*) filter (where verdict != 'fail') as good,
        count(*) as total

    from outcomes
    group by outcome_date
    union all
    select
        'answers come from a model' as objective,
        0.90::numeric as target,
        shown_date as observed_date,
        coalesce(sum(requests) filter (where rung in ('personalised', 'session')), 0)::bigint as good,
        sum(requests)::bigint as total

    from funnel
    group by shown_date

),

latest_days as (

    select
        objective,
        max(observed_date) as latest_date

    from days
    group by objective

),

windows as (

    select
        days.objective,
        days.target,
        latest_days.latest_date,
        sum(days.good)::bigint as good,
        sum(days.total)::bigint as total

    from days
    inner join latest_days using (objective)
    where latest_days.latest_date - days.observed_date < 28
    group by days.objective, days.target, latest_days.latest_date

)

-- The budget in exact numbers: one that is just spent is zero.
select
    objective,
    target::double precision as target,
    latest_date,
    good,
    total,
    good::double precision / total as attained,
    (1 - (total - good) / (total * (1 - target)))::double precision as budget_left

from windows
