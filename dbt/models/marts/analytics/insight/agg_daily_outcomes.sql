with

impressions as (

    select * from {{ ref('fct_impressions') }}

),

conversions as (

    select * from {{ ref('int_impressions_converted') }}

),

purchase_days as (

    select * from {{ ref('agg_purchase_days') }}

),

shown as (

    select
        domain,
        {{ utc_date('impressions.shown_at') }} as outcome_date,
        count(*) as impressions,
        count(*) filter (where impressions.is_clicked) as clicks,
        count(conversions.event_id) as conversions

    from impressions
    left join conversions using (event_id)
    group by domain, {{ utc_date('impressions.shown_at') }}

),

bought as (

    select
        domain,
        purchase_date as outcome_date,
        sum(purchases)::bigint as purchases,
        sum(revenue) as revenue

    from purchase_days
    group by domain, purchase_date

)

select
    outcome_date,
    domain,
    coalesce(shown.impressions, 0) as impressions,
    coalesce(shown.clicks, 0) as clicks,
    coalesce(shown.conversions, 0) as conversions,
    shown.clicks::double precision / shown.impressions as click_through_rate,
    shown.conversions::double precision / shown.impressions as conversion_rate,
    coalesce(bought.purchases, 0) as purchases,
    bought.revenue

from shown
full outer join bought using (domain, outcome_date)
