with

impressions as (

    select * from {{ ref('fct_impressions') }}

),

conversions as (

    select * from {{ ref('int_impressions_converted') }}

),

items as (

    select * from {{ ref('dim_items') }}

),

-- Popularity of every item among those of its domain: as a share with one event added to each, so that an item
-- without any has a finite novelty; and as a rank from 0 (least) to 1 (most), ties at their mean.
popularity as (

    select
        item_id,
        (interaction_count + 1.0) / sum(interaction_count + 1.0) over (partition by domain) as share,
        (
            rank() over (partition by domain order by interaction_count)
            - 1 + count(*) over (partition by domain, interaction_count) / 2.0
        )
        / count(*) over (partition by domain) as rank_share

    from items

),

catalogue as (

    select
        domain,
        count(*) as catalogue_items

    from items
    where is_available
    group by domain

),

latest_days as (

    select
        domain,
        max({{ utc_date('shown_at') }}) as window_end_date

    from impressions
    group by domain

),

windows as (

    select
        latest_days.domain,
        latest_days.window_end_date,
        days as window_days,
        latest_days.window_end_date - days + 1 as window_start_date

    from latest_days
    cross join unnest(array[7, 28, 365]) as days

),

effectiveness as (

    select
        windows.domain,
        impressions.variant,
        windows.window_days,
        windows.window_start_date,
        windows.window_end_date,
        count(distinct impressions.request_id) as requests,
        count(*) as impressions,
        count(*) filter (where impressions.is_clicked) as clicks,
        count(conversions.event_id) as conversions,
        count(distinct impressions.user_id) as users,
        count(distinct impressions.user_id) filter (where impressions.is_clicked) as users_clicked,
        count(distinct impressions.user_id) filter (where conversions.event_id is not null) as users_converted,
        count(distinct impressions.item_id) as items_shown,
        avg(-ln(popularity.share::double precision) / ln(2::double precision)) as novelty_bits,
        avg(popularity.rank_share)::double precision as popularity_rank

    from windows
    inner join impressions
        on
            windows.domain = impressions.domain
            and {{ utc_date('impressions.shown_at') }} between windows.window_start_date and windows.window_end_date
    left join popularity using (item_id)
    left join conversions using (event_id)
    group by
        windows.domain,
        impressions.variant,
        windows.window_days,
        windows.window_start_date,
        windows.window_end_date

)

select
    effectiveness.domain,
    effectiveness.variant,
    effectiveness.window_days,
    effectiveness.window_start_date,
    effectiveness.window_end_date,
    effectiveness.requests,
    effectiveness.impressions,
    effectiveness.clicks,
    effectiveness.conversions,
    effectiveness.clicks::double precision / effectiveness.impressions as click_through_rate,
    effectiveness.conversions::double precision / effectiveness.impressions as conversion_rate,
    effectiveness.users,
    effectiveness.users_clicked,
    effectiveness.users_converted,
    effectiveness.items_shown,
    effectiveness.items_shown::double precision / catalogue.catalogue_items as coverage,
    effectiveness.novelty_bits,
    effectiveness.popularity_rank

from effectiveness
left join catalogue using (domain)
