with

impressions as (

    select * from {{ ref('fct_impressions') }}

),

purchases as (

    select * from {{ ref('int_purchases_priced') }}

),

exposures as (

    select
        domain,
        user_id,
        min(shown_at) as first_shown_at,
        min(variant) as variant,
        count(distinct variant) as variants

    from impressions
    group by domain, user_id

),

-- Last touch: a purchase belongs to the latest click on a recommendation of that item to that user in 7 days before.
last_touches as (

    select distinct on (purchases.event_id)
        purchases.event_id,
        purchases.domain,
        purchases.revenue,
        impressions.variant

    from purchases
    inner join impressions
        on
            purchases.user_id = impressions.user_id
            and purchases.item_id = impressions.item_id
            and purchases.occurred_at >= impressions.clicked_at
            and purchases.occurred_at < impressions.clicked_at + interval '7 days'
    order by purchases.event_id asc, impressions.clicked_at desc, impressions.event_id asc

),

last_touch as (

    select
        domain,
        variant,
        count(*) as purchases_last_touch,
        sum(revenue) as revenue_last_touch

    from last_touches
    group by domain, variant

),

revenue_since_exposure as (

    select
        exposures.domain,
        exposures.user_id,
        exposures.variant,
        coalesce(sum(purchases.revenue), 0) as revenue

    from exposures
    left join purchases
        on
            exposures.domain = purchases.domain
            and exposures.user_id = purchases.user_id
            and purchases.occurred_at >= exposures.first_shown_at
    where exposures.variants = 1
    group by exposures.domain, exposures.user_id, exposures.variant

),

since_exposure as (

    select
        domain,
        variant,
        count(*) as users,
        sum(revenue) as revenue,
        avg(revenue) as revenue_per_user,
        var_samp(revenue) as revenue_variance

    from revenue_since_exposure
    group by domain, variant

),

control as (

    select * from since_exposure
    where variant = '{{ var("control", "popular") }}'

)

select
    since_exposure.domain,
    since_exposure.variant,
    since_exposure.users,
    since_exposure.revenue,
    since_exposure.revenue_per_user,
    coalesce(last_touch.purchases_last_touch, 0) as purchases_last_touch,
    last_touch.revenue_last_touch,
    control.users as control_users,
    (since_exposure.revenue_per_user - control.revenue_per_user) * since_exposure.users as revenue_incremental,
    1.959964 * since_exposure.users * sqrt(
        since_exposure.revenue_variance / since_exposure.users + control.revenue_variance / control.users
    ) as revenue_incremental_error

from since_exposure
left join last_touch using (domain, variant)
left join control
    on
        since_exposure.domain = control.domain
        and since_exposure.variant != control.variant
